"""The endpoints that list models and report readiness, and `/metrics`."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway import __version__
from gateway.errors import ModelNotFound, ModelNotReady
from gateway.http.rendering import json_answer
from gateway.http.state import State
from gateway.http.table import TASK
from gateway.modelspec import ModelSpec

_FRAMEWORK: Final = "transformers"
_HEALTHY: Final = {"status": "ok"}


async def root(_: Request[State]) -> Response:
    """`GET /`: tells clients that the service answers."""
    return json_answer({"ok": "ok"})


async def health(request: Request[State]) -> Response:
    """`GET /health`: 200 when the default model is loaded, else 503.

    Without a default model the answer is 200 when Triton is live. Triton's own readiness would not
    do: it is false as soon as one model could not be loaded.
    """
    state = request.state
    model_id = state["settings"].default_model
    if model_id is None:
        ready, subject = await state["triton"].is_live(), "Triton"
    else:
        ready, subject = await state["triton"].is_model_ready(model_id), f"Model {model_id}"
    if not ready:
        raise ModelNotReady(f"{subject} is not ready")
    return json_answer(_HEALTHY)


async def model_health(request: Request[State]) -> Response:
    """`GET /models/{id}/health`: 200 when the model is loaded, else 503; 404 if it is unknown."""
    model_id = request.path_params["model_id"]
    if not await _is_ready(request, model_id):
        raise ModelNotReady(f"Model {model_id} is not ready")
    return json_answer(_HEALTHY)


async def info(request: Request[State]) -> Response:
    """`GET /info`: the version, and the facts of every loaded model."""
    answer = {
        "version": __version__,
        "pipeline_tag": TASK,
        "default_model": request.state["settings"].default_model,
        "models": [_facts(m.spec) for m in await request.state["models"].all_ready()],
    }
    return json_answer(answer)


async def model_info(request: Request[State]) -> Response:
    """`GET /models/{id}` and `…/info`: the facts of one model, which must be loaded."""
    model = await request.state["models"].get(request.path_params["model_id"])
    return json_answer({"version": __version__, "pipeline_tag": TASK} | _facts(model.spec))


def _facts(spec: ModelSpec) -> dict[str, Any]:
    return {
        "model_id": spec.model_id,
        "model_sha": spec.revision,
        "model_type": spec.architecture,
        "model_dtype": spec.dtype,
        "checkpoint_dtype": spec.checkpoint_dtype,
        "weights": spec.weights,
        "problem_type": spec.problem_type,
        "num_labels": len(spec.id2label),
        "sha256": spec.sha256,
        "versions": spec.versions,
    }


async def models(request: Request[State]) -> Response:
    """`GET /models`: the facts of every loaded model."""
    return json_answer([_facts(m.spec) for m in await request.state["models"].all_ready()])


async def status(request: Request[State]) -> Response:
    """`GET /status/{id}`: state of a model for `get_model_status` of huggingface_hub.

    The request does not load the model.
    """
    model_id = request.path_params["model_id"]
    is_ready = await _is_ready(request, model_id)
    compute_type = "cpu"
    if is_ready:
        compute_type = (await request.state["models"].get(model_id)).compute_type
    answer = {
        "state": "Loaded" if is_ready else "Loadable",
        "loaded": is_ready,
        "compute_type": {compute_type: {"count": 1}},
        "framework": _FRAMEWORK,
    }
    return json_answer(answer)


async def framework(request: Request[State]) -> Response:
    """`GET /framework/{name}`: loaded models for `list_deployed_models` of huggingface_hub."""
    if request.path_params["framework"] != _FRAMEWORK:
        return json_answer([])
    models = await request.state["models"].all_ready()
    return json_answer([{"model_id": m.spec.model_id, "task": TASK} for m in models])


async def hub_model(request: Request[State]) -> Response:
    """`GET /api/models/{id}`: a model as the hub describes it.

    Clients with `HF_ENDPOINT` set to the gateway ask for it.
    """
    model_id = request.path_params["model_id"]
    return json_answer(_hub_facts(model_id, is_ready=await _is_ready(request, model_id)))


async def hub_models(request: Request[State]) -> Response:
    """`GET /api/models`: every loaded model, as the hub lists models."""
    loaded = await request.state["models"].all_ready()
    return json_answer([_hub_facts(m.spec.model_id, is_ready=True) for m in loaded])


def _hub_facts(model_id: str, *, is_ready: bool) -> dict[str, Any]:
    mapping = {
        "provider": "hf-inference",
        "providerId": model_id,
        "hfModelId": model_id,
        "status": "live",
        "task": TASK,
    }
    return {
        "id": model_id,
        "pipeline_tag": TASK,
        "tags": [],
        "inference": "warm" if is_ready else "cold",
        "inferenceProviderMapping": [mapping],
    }


async def _is_ready(request: Request[State], model_id: str) -> bool:
    entry = (await request.state["models"].index()).get(model_id)
    if entry is None:
        raise ModelNotFound(model_id)
    return entry.is_ready


async def metrics(request: Request[State]) -> Response:
    """`GET /metrics`: Prometheus text or OpenMetrics, by the header `Accept`."""
    accept, accept_encoding = (
        request.headers.get(name, "") for name in ("accept", "accept-encoding")
    )
    body, headers = request.state["metrics"].render(accept, accept_encoding)
    return Response(body, headers=headers)
