"""Answers and errors as HTTP: always JSON, always with a length."""

import logging
from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Send

from gateway.errors import GatewayError
from gateway.http.schemas import render_error
from gateway.http.state import State
from gateway.observability.metrics import Metrics

log = logging.getLogger("gateway")

# A path may be as long as a header.
_MESSAGE_CHARS: Final = 300
_NO_EXTRA: Final[Mapping[str, float]] = {}
_JSON: Final = "application/json"
_CONTENT_TYPE: Final = (b"content-type", _JSON.encode())

Parts = tuple[int, bytes, dict[str, str]]
"""Status, body and headers of an answer."""


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send an answer of JSON that is rendered already."""
    raw = [
        (b"content-length", str(len(body)).encode()),
        _CONTENT_TYPE,
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def json_response(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A response of JSON that is rendered already."""
    return Response(body, status, headers, media_type=_JSON)


def json_object(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A 200 response of any JSON."""
    return json_response(orjson.dumps(content), headers=headers)


def json_error(
    message: str, status: int, error_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with the JSON object of an error."""
    return json_response(render_error(message, error_type, _NO_EXTRA), status, headers)


def error_parts(exc: GatewayError, metrics: Metrics) -> Parts:
    """The answer for an error of ours, which is counted."""
    metrics.count_error(exc.error_type)
    if exc.status == 500:
        log.error("%s: %s", exc.error_type, exc, exc_info=exc.__cause__)
    headers = dict(exc.headers)
    if exc.retry_after_s is not None:
        headers["retry-after"] = str(exc.retry_after_s)
    return exc.status, render_error(str(exc), exc.error_type, exc.extra), headers


def unexpected_error_parts(exc: Exception, metrics: Metrics) -> Parts:
    """The last resort; the log has the whole story."""
    log.error("unexpected error", exc_info=exc)
    metrics.count_error(GatewayError.error_type)
    body = render_error("Internal server error", GatewayError.error_type, _NO_EXTRA)
    return GatewayError.status, body, {}


def render_gateway_error(request: Request[State], exc: Exception) -> Response:
    """`error_parts` for Starlette."""
    assert isinstance(exc, GatewayError)  # noqa: S101 - registered for this class only
    status, body, headers = error_parts(exc, request.state["metrics"])
    return json_response(body, status, headers)


def render_unexpected_error(request: Request[State], exc: Exception) -> Response:
    """`unexpected_error_parts` for Starlette, which raises the exception again."""
    status, body, headers = unexpected_error_parts(exc, request.state["metrics"])
    return json_response(body, status, headers)


def render_http_error(request: Request[State], exc: Exception) -> Response:
    """The answer for what Starlette refuses itself: an unknown path, a wrong method."""
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for this class only
    error_type = exc.detail.lower().replace(" ", "_")
    request.state["metrics"].count_error(error_type)
    message = f"{exc.detail}: {request.method} {request.url.path}"
    headers = {"allow": _methods_of(request)} if exc.status_code == 405 else exc.headers
    return json_error(message[:_MESSAGE_CHARS], exc.status_code, error_type, headers)


def _methods_of(request: Request[State]) -> str:
    """What the URL takes: Starlette's own `Allow` names only the first route's methods."""
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods
    return ", ".join(sorted(methods))
