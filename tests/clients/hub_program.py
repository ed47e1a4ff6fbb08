"""A program for the environment of one huggingface_hub: do what a user of that version does.

    python hub_program.py JOB

JOB is a JSON object: `asynchronous`, `client` (keyword arguments of the client), `scenarios`
(names from below), `picture` (a path), `model_id`, and optionally `router`, a base URL for models
that are named by id. Prints a JSON object with each scenario's `{"value": …}` or
`{"error": …, "status": …, "text": …, "payload": …}`. Needs huggingface_hub alone.
"""

import asyncio
import dataclasses
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import AsyncInferenceClient, InferenceClient

Job = dict[str, Any]

SCENARIOS: dict[str, Callable[[Any, Job], Any]] = {
    "bytes": lambda client, job: client.image_classification(Path(job["picture"]).read_bytes()),
    "path": lambda client, job: client.image_classification(job["picture"]),
    "parameters": lambda client, job: client.image_classification(
        job["picture"], top_k=2, function_to_apply="sigmoid"
    ),
    "model_status": lambda client, job: client.get_model_status(job["model_id"]),
    "deployed_models": lambda client, _: client.list_deployed_models(),
    "endpoint_info": lambda client, _: client.get_endpoint_info(),
    "health_check": lambda client, _: client.health_check(),
}


def point_router_at(url: str) -> None:
    """Set the URL that versions from 0.29 on send model ids to; they have no setting for it."""
    from huggingface_hub.inference._providers import PROVIDERS

    PROVIDERS["hf-inference"]["image-classification"].base_url = url


def call(scenario: str, job: Job) -> Any:
    """Call the scenario's method; await its result if it is asynchronous."""
    client = (AsyncInferenceClient if job["asynchronous"] else InferenceClient)(**job["client"])
    made = SCENARIOS[scenario](client, job)
    return asyncio.run(made) if inspect.iscoroutine(made) else made


def outcome(scenario: str, job: Job) -> dict[str, Any]:
    """The result of a scenario, or the text of the error that a user sees."""
    try:
        return {"value": call(scenario, job)}
    except Exception as exc:
        response = getattr(exc, "response", None)
        return {
            "error": type(exc).__name__,
            # aiohttp's error is also the response.
            "status": getattr(exc if response is None else response, "status_code", None)
            or getattr(exc, "status", None),
            "text": str(exc),
            "payload": getattr(exc, "response_error_payload", None),
        }


def main(job: Job) -> None:
    """Run every scenario, in order."""
    if router := job.get("router"):
        point_router_at(router)
    outcomes = {scenario: outcome(scenario, job) for scenario in job["scenarios"]}
    json.dump(outcomes, sys.stdout, default=dataclasses.asdict)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
