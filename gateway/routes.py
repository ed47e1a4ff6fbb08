"""HTTP only: take the request apart, call the classifier, render the answer or the error."""

import asyncio
import logging
from typing import Final, TypedDict

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import __version__
from gateway.classifier import ImageClassifier
from gateway.errors import (
    ClientClosedRequest,
    GatewayError,
    ModelNotReady,
    PayloadTooLarge,
    RequestTimeout,
)
from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.models import ModelDirectory
from gateway.schemas import render_error, render_predictions
from gateway.settings import Settings
from gateway.triton import TritonClient

log = logging.getLogger("gateway")

# A client that is still sending cannot read an answer; so much more is read and thrown away.
_DRAINED_BODIES: Final = 4


class State(TypedDict):
    """What lives as long as the process; built in the lifespan."""

    settings: Settings
    triton: TritonClient
    models: ModelDirectory
    classifier: ImageClassifier
    metrics: Metrics


async def classify(request: Request[State]) -> Response:
    """`POST /models/{model_id}`: labels and scores of one image."""
    state = request.state
    deadline = asyncio.get_running_loop().time() + state["settings"].request_timeout_s
    with state["classifier"].admit():
        body = await _read_body(request, state["settings"], deadline)
        predictions = await state["classifier"].classify(
            request.path_params["model_id"].rstrip("/"),
            body,
            request.query_params,
            request.scope["request_id"],
            deadline,
        )
    return _json(render_predictions(predictions))


async def health(request: Request[State]) -> Response:
    """`GET /health`: 200 when the default model is loaded, else 503.

    Without a default model Triton's own readiness counts.
    """
    state = request.state
    model_id = state["settings"].default_model
    if model_id is None:
        ready, what = await state["triton"].is_ready(), "Triton"
    else:
        ready, what = await state["triton"].is_model_ready(model_id), f"Model {model_id}"
    if not ready:
        raise ModelNotReady(f"{what} is not ready")
    return _json(orjson.dumps({"status": "ok"}))


async def info(request: Request[State]) -> Response:
    """`GET /info`: the version and every model that is served, with the facts of its contract."""
    state = request.state
    models = [
        {
            "model_id": spec.model_id,
            "model_sha": spec.revision,
            "model_type": spec.architecture,
            "model_dtype": spec.dtype,
            "weights": spec.weights,
            "problem_type": spec.problem_type,
            "num_labels": len(spec.id2label),
            "sha256": spec.sha256,
            "versions": spec.versions,
        }
        for spec in await state["models"].all_ready()
    ]
    answer = {
        "version": __version__,
        "pipeline_tag": "image-classification",
        "default_model": state["settings"].default_model,
        "models": models,
    }
    return _json(orjson.dumps(answer))


async def metrics(request: Request[State]) -> Response:
    """`GET /metrics`: Prometheus text."""
    return Response(request.state["metrics"].render(), media_type=CONTENT_TYPE)


async def _read_body(request: Request[State], settings: Settings, deadline: float) -> bytes:
    """The whole body, read only while it is within the limits.

    Raises:
        PayloadTooLarge, RequestTimeout, ClientClosedRequest
    """
    limit = settings.max_body_bytes
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                    continue
                chunks.clear()
                if size > _DRAINED_BODIES * limit:
                    break
    except TimeoutError as exc:
        raise RequestTimeout(
            f"The request body did not arrive within {settings.request_timeout_s:g} s"
            " (GATEWAY_REQUEST_TIMEOUT_S)"
        ) from exc
    except ClientDisconnect as exc:
        raise ClientClosedRequest("The client closed the connection") from exc
    if size > limit:
        raise PayloadTooLarge(limit)
    return b"".join(chunks)


def render_gateway_error(request: Request[State], exc: Exception) -> Response:
    """The answer for an error of ours."""
    assert isinstance(exc, GatewayError)  # noqa: S101 - registered for this class only
    request.state["metrics"].count_error(exc.error_type)
    if exc.status >= 500:
        log.error("%s: %s", exc.error_type, exc, exc_info=exc.__cause__)
    headers = {} if exc.retry_after_s is None else {"retry-after": str(exc.retry_after_s)}
    return _json(render_error(str(exc), exc.error_type), exc.status, headers)


def render_http_error(request: Request[State], exc: Exception) -> Response:
    """The answer for what Starlette refuses itself: an unknown path, a wrong method."""
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for this class only
    error_type = exc.detail.lower().replace(" ", "_")
    request.state["metrics"].count_error(error_type)
    message = f"{exc.detail}: {request.method} {request.url.path}"
    return _json(render_error(message, error_type), exc.status_code, dict(exc.headers or {}))


def render_unexpected_error(request: Request[State], _: Exception) -> Response:
    """The last resort; Starlette raises the exception again, so that it is logged."""
    request.state["metrics"].count_error(GatewayError.error_type)
    return _json(render_error("Internal server error", GatewayError.error_type), 500)


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


ROUTES: Final = [
    Route("/models/{model_id:path}", classify, methods=["POST"]),
    Route("/health", health),
    Route("/info", info),
    Route("/metrics", metrics),
]
