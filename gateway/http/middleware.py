"""What happens to every request: an id, a log line, metrics, a normal path, an answer to errors."""

import logging
import re
from abc import ABC, abstractmethod
from random import randbytes
from time import perf_counter
from typing import Final

from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.rendering import error_answer
from gateway.http.table import ROUTER_PREFIX
from gateway.observability.logs import log
from gateway.observability.metrics import Metrics

# Requested every few seconds by probes and Prometheus.
_ROUTINE_PATHS: Final = frozenset({"/health", "/metrics"})
_SAFE_ID: Final = re.compile(rb"[A-Za-z0-9=;:._-]{1,128}")
# The first header that a request has gives the id.
_ID_HEADERS: Final = (b"x-request-id", b"x-amzn-trace-id")


class _RequestMiddleware(ABC):
    """ASGI middleware for HTTP requests; it passes everything else on, such as the lifespan."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on; see the class."""
        pass_on = self.handle if scope["type"] == "http" else self.app
        await pass_on(scope, receive, send)

    @abstractmethod
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""


class RequestTelemetry(_RequestMiddleware):
    """Each request has an id, one log line, and is counted and timed.

    The answer carries the id as `x-request-id`. Routine requests are logged at level debug.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        super().__init__(app)
        self._metrics = metrics

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; see the class."""
        scope["request_id"] = _request_id(scope)
        header = (b"x-request-id", scope["request_id"].encode())
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
            await self.app(scope, receive, send_with_id)
        finally:
            self._metrics.inflight.dec()
            self._record(scope, code, perf_counter() - start)

    def _record(self, scope: Scope, code: int, seconds: float) -> None:
        route = _route_template(scope)
        self._metrics.requests.labels(route, code).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        is_routine = scope["path"] in _ROUTINE_PATHS and code < 400
        # `%r`: a path may hold line breaks, and a log line must stay one line.
        log.log(
            logging.DEBUG if is_routine else logging.INFO,
            "%s %r %d %.1f ms request_id=%s",
            scope["method"],
            scope["path"],
            code,
            seconds * 1000,
            scope["request_id"],
        )


def _request_id(scope: Scope) -> str:
    given = {name: value for name, value in scope["headers"] if name in _ID_HEADERS}
    for name in _ID_HEADERS:
        value = given.get(name)
        if value and _SAFE_ID.fullmatch(value):
            text: str = value.decode()
            return text
    # No secret, so it needs no system call.
    return randbytes(16).hex()  # noqa: S311 - see above


def _route_template(scope: Scope) -> str:
    """The endpoint's path in the table; `unmatched` for paths that no endpoint has."""
    path: str = getattr(scope.get("route"), "path", None) or "unmatched"
    return path.replace(":model_id}", "}")


class BrowserRequests(_RequestMiddleware):
    """Passes requests with an `Origin` through CORS; other answers have no header of CORS."""

    def __init__(self, app: ASGIApp, cors: ASGIApp) -> None:
        super().__init__(app)
        self._cors = cors

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; see the class."""
        has_origin = any(name == b"origin" for name, _ in scope["headers"])
        await (self._cors if has_origin else self.app)(scope, receive, send)


class NormalPaths(_RequestMiddleware):
    """Removes the prefix of Hugging Face's router, and slashes at a path's end.

    No redirect, as a client that follows one may lose the body.
    """

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self._router = router

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; see the class."""
        scope["path"] = normal_path(scope["path"])
        # With an `app` the router raises its errors, instead of answering in plain text.
        scope["app"] = self._router
        await self._router(scope, receive, send)


def normal_path(path: str) -> str:
    """The path of the table for the path of a URL."""
    if path == ROUTER_PREFIX or path.startswith(f"{ROUTER_PREFIX}/"):
        path = path.removeprefix(ROUTER_PREFIX)
    return path.rstrip("/") or "/"


class ErrorAnswers(_RequestMiddleware):
    """Turns an error of a request into its answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        super().__init__(app)
        self._metrics = metrics

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; see the class."""
        is_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        # Any error: the caller gets an answer, and the log the whole error.
        except Exception as exc:
            answer = error_answer(exc, scope, self._metrics)
            if is_started:
                # Half an answer cannot be replaced; the server closes the connection.
                raise
            await answer(scope, receive, send)
