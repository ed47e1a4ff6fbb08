"""What is noted of every request: an id, a line in the log, the series of HTTP.

Every answer carries `x-request-id`, the caller's own or a new one; every request is one line,
those of probes at level debug.
"""

import logging
import re
from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.paths import Target
from gateway.observability.logs import log
from gateway.observability.metrics import Metrics
from gateway.runtime.ids import new_id

# Asked every few seconds by probes and Prometheus.
_ROUTINE_PATHS: Final = frozenset({"/health", "/metrics"})
_SAFE_ID: Final = re.compile(rb"[A-Za-z0-9=;:._-]{1,128}")
_ID_HEADERS: Final = (b"x-request-id", b"x-amzn-trace-id")


class Observed:
    """ASGI middleware around everything else, so that even the last resort's answer is noted."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on; see the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        header = (b"x-request-id", request_id.encode())
        start = perf_counter()
        code = 500

        async def send_with_id(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                message["headers"] = [*message["headers"], header]
            await send(message)

        self._metrics.inflight.inc()
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._metrics.inflight.dec()
            seconds = perf_counter() - start
            self._metrics.observe_request(_template(scope), code, seconds)
            is_routine = scope["path"] in _ROUTINE_PATHS and code < 400
            # `%r`: a path may hold line breaks, and a log line must stay one line.
            log.log(
                logging.DEBUG if is_routine else logging.INFO,
                "%s %r %d %.1f ms request_id=%s",
                scope["method"],
                scope["path"],
                code,
                seconds * 1000,
                request_id,
            )


def _request_id(scope: Scope) -> str:
    given = {name: value for name, value in scope["headers"] if name in _ID_HEADERS}
    for name in _ID_HEADERS:
        value = given.get(name)
        if value and _SAFE_ID.fullmatch(value):
            text: str = value.decode()
            return text
    return new_id()


def _template(scope: Scope) -> str:
    """The path as declared, with names in the place of what varies; `unmatched` for any other."""
    target: Target | None = scope.get("target")
    if target is not None:
        return target.template
    path: str = getattr(scope.get("route"), "path", None) or "unmatched"
    return path.replace(":path}", "}")
