"""Run a client's program in its own environment, and send the same request over plain HTTP.

The programs see nothing of a developer's environment: no token, no cache, no proxy.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx
import pytest

HERE: Final = Path(__file__).parent
RUN_TIMEOUT_S: Final = 120.0

SIGMOID_TOP_2: Final = {"top_k": "2", "function_to_apply": "sigmoid"}
SIGMOID_TOP_2_QUERY: Final = "?top_k=2&function_to_apply=sigmoid"
UNKNOWN: Final = "nobody/nothing"
UNKNOWN_TEXT: Final = "Model nobody/nothing does not exist; GET /info lists the loaded models"
BAD_TOKEN_TEXT: Final = "Invalid username or password."  # noqa: S105  a message
LOADING_TEXT: Final = "Model test/cold is currently loading"
WAIT: Final = {"X-Wait-For-Model": "true"}

Outcome = dict[str, Any]


def leave_out(reason: str) -> NoReturn:
    """Skip the test on a laptop; fail it on CI, where every client has to be installed."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(command: list[str], home: Path, **environment: str) -> str:
    """Run a program that must succeed, and return its output."""
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_job(
    program: list[str], job: dict[str, Any], home: Path, **environment: str
) -> dict[str, Outcome]:
    """Run a job, and return the outcomes of its scenarios by name."""
    outcomes: dict[str, Outcome] = json.loads(run([*program, json.dumps(job)], home, **environment))
    return outcomes


def plain_answer(
    client: httpx.Client,
    picture: Path,
    model_id: str = "test/vit",
    token: str | None = None,
    **parameters: str,
) -> list[dict[str, Any]]:
    """The answer over plain HTTP."""
    response = client.post(
        f"/models/{model_id}",
        content=picture.read_bytes(),
        params=parameters,
        headers=None if token is None else {"authorization": f"Bearer {token}"},
    )
    assert response.status_code == 200, response.text
    answer: list[dict[str, Any]] = response.json()
    return answer


def url_of(client: httpx.Client) -> str:
    """The URL of the client's server, without a slash at the end."""
    return str(client.base_url).rstrip("/")
