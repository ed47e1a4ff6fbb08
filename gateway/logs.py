"""Log lines and request ids.

Every answer carries `x-request-id`, the caller's own or a new one; every request is one line,
those of probes at level debug.
"""

import logging
import re
from time import perf_counter
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("gateway")

# Asked every few seconds by probes and Prometheus.
_ROUTINE_PATHS: Final = frozenset({"/health", "/metrics"})
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9=;:._-]{1,128}")


def configure_logging(level: str) -> None:
    """Write lines of at least `level` to standard error."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # uvicorn tells of its own start and stop in four lines each; `app` does in one.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, log.getEffectiveLevel()))


class RequestLog:
    """ASGI middleware: give the request an id, send it back, log the outcome."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on; see the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope["request_id"] = request_id
        start = perf_counter()
        code = 0

        async def send_with_id(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            is_routine = scope["path"] in _ROUTINE_PATHS and code < 400
            # `%r`: a path may hold line breaks, and a log line must stay one line.
            log.log(
                logging.DEBUG if is_routine else logging.INFO,
                "%s %r %d %.1f ms request_id=%s",
                scope["method"],
                scope["path"],
                code,
                (perf_counter() - start) * 1000,
                request_id,
            )


def _request_id(headers: Headers) -> str:
    for name in ("x-request-id", "x-amzn-trace-id"):
        given = headers.get(name)
        if given and _SAFE_ID.fullmatch(given):
            return given
    return uuid4().hex
