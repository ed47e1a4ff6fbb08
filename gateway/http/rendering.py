"""Answers as JSON. `middleware.ErrorAnswers` calls `error_answer` for every error."""

import logging
from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from gateway.errors import GatewayError
from gateway.observability.logs import log
from gateway.observability.metrics import Metrics

# A path may be as long as a header; a message stays short.
_MESSAGE_CHARS: Final = 300
_JSON: Final = "application/json"


def json_answer(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A 200 answer of any JSON."""
    return Response(orjson.dumps(content), headers=headers, media_type=_JSON)


def json_error(
    message: str,
    status: int,
    error_type: str,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, float] | None = None,
) -> Response:
    """The JSON object of every answer that is not 2xx."""
    content = {"error": message, "error_type": error_type, **(extra or {})}
    return Response(orjson.dumps(content), status, headers, media_type=_JSON)


def error_answer(exc: Exception, scope: Scope, metrics: Metrics) -> Response:
    """The answer for an error of a request. Counts the error, and logs faults of the service."""
    if isinstance(exc, HTTPException):
        error_type = exc.detail.lower().replace(" ", "_")
        answer = _routing_error(exc, error_type, scope)
    elif isinstance(exc, GatewayError):
        error_type = exc.error_type
        answer = _gateway_error(exc)
    else:
        error_type = GatewayError.error_type
        log.error("unexpected error", exc_info=exc)
        answer = json_error("Internal server error", GatewayError.status, error_type)
    metrics.errors.labels(error_type).inc()
    return answer


def _gateway_error(exc: GatewayError) -> Response:
    if exc.status == GatewayError.status:
        log.log(logging.ERROR, "%s: %s", exc.error_type, exc, exc_info=exc.__cause__)
    headers = dict(exc.headers)
    if exc.retry_after_s is not None:
        headers["retry-after"] = str(exc.retry_after_s)
    return json_error(str(exc), exc.status, exc.error_type, headers, exc.extra)


def _routing_error(exc: HTTPException, error_type: str, scope: Scope) -> Response:
    """The answer for what the router refuses: an unknown path, a wrong method."""
    message = f"{exc.detail}: {scope['method']} {scope['path']}"
    headers = {"allow": _methods_of(scope)} if exc.status_code == 405 else exc.headers
    return json_error(message[:_MESSAGE_CHARS], exc.status_code, error_type, headers)


def _methods_of(scope: Scope) -> str:
    """The methods of the URL. Starlette's own `Allow` names only those of the first route."""
    methods: set[str] = set()
    for route in scope["app"].routes:
        if route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods
    return ", ".join(sorted(methods))
