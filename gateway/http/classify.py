"""The endpoint that classifies: read and parse the request, call the classifier, answer.

An ASGI application, as it watches for a client that disconnects.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import randbytes
from time import perf_counter
from typing import Final, cast
from urllib.parse import parse_qsl

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.classification.classifier import Classification
from gateway.errors import (
    ClientClosedRequest,
    DeadlineExceeded,
    InvalidImage,
    NoDefaultModel,
    PayloadTooLarge,
    RequestTimeout,
    UnknownTask,
)
from gateway.http.authorization import check_token
from gateway.http.content_coding import decode_content
from gateway.http.mistakes import CURL_HINT, is_stripped_by_curl
from gateway.http.schemas import parse_request, render_predictions
from gateway.http.state import State
from gateway.http.table import TASK
from gateway.imaging.formats import has_image_signature
from gateway.request import ClassificationRequest
from gateway.settings import Settings

# A larger body is parsed in a thread. A raw image is not: parsing it takes no time. An encoded body
# always is: it may be large once it is decoded. For small bodies a thread costs more than parsing.
_INLINE_BYTES: Final = 128 * 1024
# A client that still sends cannot read an answer, so this multiple of the limit is read and
# discarded.
_DISCARDED_BODIES: Final = 4
_COMMIT_CHARS: Final = 40


class ClassifyEndpoint:
    """The endpoint as an object: Starlette calls a function with a request object instead."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST whose path may name a model and a task, with labels and scores.

        Raises:
            GatewayError: Nothing has been sent yet.
        """
        start = perf_counter()
        state = cast(State, scope["state"])
        settings = state["settings"]
        deadline = asyncio.get_running_loop().time() + settings.request_timeout_s
        headers = _headers(scope)
        if state["tokens"] is not None:
            check_token(headers.get("authorization"), state)
        with state["classifier"].admit():
            body = await _read_body(receive, settings, deadline)
            model_id = _model_id(scope["path_params"], settings)
            try:
                async with cancelled_on_disconnect(receive):
                    request = await _parse(body, headers, scope["query_string"], state, deadline)
                    answer = await state["classifier"].classify(
                        model_id, request, scope["request_id"], deadline
                    )
            except InvalidImage as exc:
                if not is_stripped_by_curl(body, headers.get("content-type", "")):
                    raise
                raise InvalidImage(f"{exc}; {CURL_HINT}") from exc
        response = Response(
            render_predictions(answer.predictions),
            headers=_response_headers(answer, perf_counter() - start),
            media_type="application/json",
        )
        await response(scope, receive, send)


def _headers(scope: Scope) -> dict[str, str]:
    """By lower-case name; the first value of a repeated header counts."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


async def _read_body(receive: Receive, settings: Settings, deadline: float) -> bytes:
    """The whole body, kept only while it is within the limit.

    Raises:
        PayloadTooLarge, RequestTimeout, ClientClosedRequest
    """
    limit = settings.max_body_bytes
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout_at(deadline):
            while more and size <= _DISCARDED_BODIES * limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _client_closed_request()
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


@asynccontextmanager
async def cancelled_on_disconnect(receive: Receive) -> AsyncIterator[None]:
    """A block that is cancelled when the client closes its connection.

    Args:
        receive: Of a request whose body has been read, so that its next message is the disconnect.

    Raises:
        ClientClosedRequest: On leaving the block. The client has closed its connection.
    """
    work = cast("asyncio.Task[None]", asyncio.current_task())
    is_disconnected = False

    async def cancel_on_disconnect() -> None:
        nonlocal is_disconnected
        while (await receive())["type"] != "http.disconnect":
            pass
        is_disconnected = True
        work.cancel()

    watcher = asyncio.create_task(cancel_on_disconnect())
    try:
        yield
    except asyncio.CancelledError:
        # A cancellation for another reason, such as the server's stop, stays a cancellation.
        if is_disconnected and work.uncancel() == 0:
            raise _client_closed_request() from None
        raise
    finally:
        watcher.cancel()


def _client_closed_request() -> ClientClosedRequest:
    return ClientClosedRequest("The client closed the connection")


def _model_id(path_params: Mapping[str, str], settings: Settings) -> str:
    """The model of the URL, or the default model where the URL names none."""
    task = path_params.get("task", TASK)
    if task != TASK:
        raise UnknownTask(f"The task `{task[:80]}` is not recognized; this server knows {TASK}")
    model_id = path_params.get("model_id", settings.default_model)
    if model_id is None:
        raise NoDefaultModel("The URL names no model, and GATEWAY_DEFAULT_MODEL is unset")
    return model_id


async def _parse(
    body: bytes, headers: Mapping[str, str], query_string: bytes, state: State, deadline: float
) -> ClassificationRequest:
    arguments = body, headers, query_string, state["settings"]
    is_encoded = "content-encoding" in headers
    if not is_encoded and (len(body) <= _INLINE_BYTES or has_image_signature(body)):
        return _parse_now(*arguments)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(deadline):
            return await loop.run_in_executor(state["parsing_thread"], _parse_now, *arguments)
    except TimeoutError as exc:
        raise DeadlineExceeded(
            f"The request body was not parsed within {state['settings'].request_timeout_s:g} s"
            " (GATEWAY_REQUEST_TIMEOUT_S)"
        ) from exc


def _parse_now(
    body: bytes, headers: Mapping[str, str], query_string: bytes, settings: Settings
) -> ClassificationRequest:
    if "content-encoding" in headers:
        body = decode_content(body, headers["content-encoding"], settings.max_body_bytes)
    query = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
    return parse_request(body, headers, query, settings.max_inputs)


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
        "x-inference-id": randbytes(16).hex(),  # noqa: S311 - no secret
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
