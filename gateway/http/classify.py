"""The endpoint of the service: an image in, labels and scores out.

An ASGI application of its own: of a request's cost beside decoding, a framework's router,
middleware and request objects would be the larger part.
"""

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import Final, cast
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from gateway.classification.classifier import Classification, IncomingRequest
from gateway.errors import (
    GatewayError,
    InvalidImage,
    NoDefaultModel,
    PayloadTooLarge,
    RequestTimeout,
    UnknownTask,
)
from gateway.http.authorization import check_token
from gateway.http.mistakes import CURL_HINT, is_stripped_by_curl
from gateway.http.paths import Target
from gateway.http.presence import cancelled_on_disconnect, client_closed_request
from gateway.http.rendering import error_parts, send_json, unexpected_error_parts
from gateway.http.schemas import render_predictions
from gateway.http.state import State
from gateway.runtime.ids import new_id
from gateway.settings import Settings

TASK: Final = "image-classification"
# A client that is still sending cannot read an answer; so much more is read and thrown away.
_DRAINED_BODIES: Final = 4
_COMMIT_CHARS: Final = 40


async def classify(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a POST; `scope["target"]` is the `gateway.http.paths.Target` of its path."""
    state = cast(State, scope["state"])
    try:
        status, (body, headers) = 200, await _answer(scope, receive, state)
    except GatewayError as exc:
        status, body, headers = error_parts(exc, state["metrics"])
    except Exception as exc:
        status, body, headers = unexpected_error_parts(exc, state["metrics"])
    await send_json(send, status, body, headers)


async def _answer(scope: Scope, receive: Receive, state: State) -> tuple[bytes, dict[str, str]]:
    """Labels and scores of one image, or of each in a list, as JSON, and the headers."""
    start = perf_counter()
    settings = state["settings"]
    deadline = asyncio.get_running_loop().time() + settings.request_timeout_s
    headers = _headers(scope)
    check_token(headers.get("authorization"), state)
    with state["classifier"].admit():
        body = await _read_body(receive, state, deadline)
        incoming = IncomingRequest(
            model_id=_model_id(scope["target"], settings),
            body=body,
            headers=headers,
            query=_query(scope["query_string"]),
            request_id=scope["request_id"],
            deadline=deadline,
        )
        try:
            async with cancelled_on_disconnect(receive):
                answer = await state["classifier"].classify(incoming)
        except InvalidImage as exc:
            if not is_stripped_by_curl(body, headers.get("content-type", "")):
                raise
            raise InvalidImage(f"{exc}; {CURL_HINT}") from exc
    return (
        render_predictions(answer.predictions),
        _response_headers(answer, perf_counter() - start),
    )


def _headers(scope: Scope) -> dict[str, str]:
    """By lower-case name; of a repeated one the first value counts."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


def _query(query_string: bytes) -> Mapping[str, str]:
    if not query_string:
        return {}
    return dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))


def _model_id(target: Target, settings: Settings) -> str:
    """The model of the URL, or the default one where the URL names none."""
    if target.task not in {None, TASK}:
        raise UnknownTask(
            f"The task `{str(target.task)[:80]}` is not recognized; this server knows {TASK}"
        )
    model_id = settings.default_model if target.model_id is None else target.model_id
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
        "x-inference-id": new_id(),
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


async def _read_body(receive: Receive, state: State, deadline: float) -> bytes:
    """The whole body, read only while it is within the limits.

    Raises:
        PayloadTooLarge, RequestTimeout, ClientClosedRequest
    """
    settings = state["settings"]
    limit = settings.max_body_bytes
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        with state["deadlines"].within(deadline):
            while more and size <= _DRAINED_BODIES * limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise client_closed_request()
                chunk, more = message.get("body", b""), message.get("more_body", False)
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                else:
                    chunks.clear()
    except TimeoutError as exc:
        raise RequestTimeout(
            f"The request body did not arrive within {settings.request_timeout_s:g} s"
            " (GATEWAY_REQUEST_TIMEOUT_S)"
        ) from exc
    if size > limit:
        raise PayloadTooLarge(limit)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
