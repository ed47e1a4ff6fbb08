"""The endpoint of the service: an image in, labels and scores out."""

import asyncio
import secrets
from collections.abc import Coroutine
from time import perf_counter
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.classifier import Classification, IncomingRequest
from gateway.errors import (
    ClientClosedRequest,
    NoDefaultModel,
    PayloadTooLarge,
    RequestTimeout,
    UnknownTask,
)
from gateway.rendering import json_response
from gateway.schemas import render_predictions
from gateway.settings import Settings
from gateway.state import State

T = TypeVar("T")

TASK: Final = "image-classification"
# A client that is still sending cannot read an answer; so much more is read and thrown away.
_DRAINED_BODIES: Final = 4
_COMMIT_CHARS: Final = 40
_INFERENCE_ID_BYTES: Final = 16


async def classify(request: Request[State]) -> Response:
    """Labels and scores of one image, or of each in a list."""
    start = perf_counter()
    state = request.state
    deadline = asyncio.get_running_loop().time() + state["settings"].request_timeout_s
    with state["classifier"].admit():
        body = await _read_body(request, state["settings"], deadline)
        incoming = IncomingRequest(
            model_id=_model_id(request),
            body=body,
            headers=request.headers,
            query=request.query_params,
            request_id=request.scope["request_id"],
            deadline=deadline,
        )
        answer = await _unless_gone(request, state["classifier"].classify(incoming))
    headers = _response_headers(answer, perf_counter() - start)
    return json_response(render_predictions(answer.predictions), headers=headers)


def _model_id(request: Request[State]) -> str:
    """The model of the URL, or the default one where the URL names none."""
    task = request.path_params.get("task", TASK)
    if task != TASK:
        raise UnknownTask(f"The task `{task[:80]}` is not recognized; this server knows {TASK}")
    model_id: str | None = request.path_params.get(
        "model_id", request.state["settings"].default_model
    )
    if model_id is None:
        raise NoDefaultModel("The URL names no model, and GATEWAY_DEFAULT_MODEL is unset")
    return model_id


def _response_headers(answer: Classification, total_s: float) -> dict[str, str]:
    """The hosted API's, in its units: `x-compute-time` in seconds, the others in milliseconds."""
    spec = answer.model.spec
    return {
        "x-compute-type": answer.compute_type,
        "x-compute-time": f"{answer.total_s - answer.wait_s:.3f}",
        "x-compute-images": str(answer.images),
        "x-total-time": _milliseconds(total_s),
        "x-queue-time": _milliseconds(answer.wait_s),
        "x-inference-time": _milliseconds(answer.infer_s),
        "x-sha": spec.revision or spec.checkpoint_sha256[:_COMMIT_CHARS],
        "x-inference-id": secrets.token_urlsafe(_INFERENCE_ID_BYTES),
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


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
        raise _gone() from exc
    if size > limit:
        raise PayloadTooLarge(limit)
    return b"".join(chunks)


async def _unless_gone(request: Request[State], work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled once nobody waits for its answer.

    Raises:
        ClientClosedRequest, and whatever `work` raises
    """
    task = asyncio.ensure_future(work)
    # After the body this is the next, and the only, message there can be.
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise _gone()
    finally:
        task.cancel()
        gone.cancel()


def _gone() -> ClientClosedRequest:
    return ClientClosedRequest("The client closed the connection")
