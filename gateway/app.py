"""Composition root: what the service is made of. Read this first."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import __version__
from gateway.auth.tokens import TokensFile
from gateway.classification.classifier import ImageClassifier
from gateway.deadlines import Deadlines
from gateway.errors import GatewayError
from gateway.http.cors import Cors
from gateway.http.middleware import Observed
from gateway.http.rendering import render_gateway_error, render_http_error, render_unexpected_error
from gateway.http.routes import ROUTES, Dispatch
from gateway.http.state import State
from gateway.models.directory import ModelDirectory
from gateway.observability.logs import log
from gateway.observability.metrics import Metrics
from gateway.runtime.process import interrupt_no_one, keep_freed_memory, spare_what_stays
from gateway.settings import Settings
from gateway.triton.client import TritonClient


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application. No connection is opened before its lifespan starts.

    Raises:
        TokensError: The file of tokens cannot be used.
    """
    metrics = Metrics()
    tokens = None if settings.tokens_file is None else TokensFile(settings.tokens_file)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        # Before there are threads: they inherit it.
        interrupt_no_one()
        keep_freed_memory()
        async with TritonClient(settings.triton_url, settings.shared_memory_bytes) as triton:
            models = ModelDirectory(triton)
            deadlines = Deadlines()
            classifier = ImageClassifier(settings, triton, models, metrics, deadlines)
            async with aclosing(classifier):
                spare_what_stays()
                log.info("version %s, settings %s", __version__, settings)
                yield State(
                    settings=settings,
                    triton=triton,
                    models=models,
                    classifier=classifier,
                    deadlines=deadlines,
                    metrics=metrics,
                    tokens=tokens,
                )

    # Typed for handlers that know nothing of the state.
    exception_handlers: dict[Any, Any] = {
        GatewayError: render_gateway_error,
        HTTPException: render_http_error,
        Exception: render_unexpected_error,
    }
    app = Starlette(routes=ROUTES, lifespan=lifespan, exception_handlers=exception_handlers)
    # `Dispatch` takes slashes off the end, so a redirect to a path with one would lead to itself.
    app.router.redirect_slashes = False
    dispatch = Dispatch(app)
    # Outside Starlette's own stack, so that even its last-resort answer is counted and has an id.
    return Observed(_ForBrowsers(Cors(dispatch), dispatch), metrics)


class _ForBrowsers:
    """ASGI middleware: CORS for requests with an `Origin`, which others need not pay for."""

    def __init__(self, cors: ASGIApp, app: ASGIApp) -> None:
        self._cors = cors
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_browsers = any(name == b"origin" for name, _ in scope.get("headers", ()))
        await (self._cors if is_browsers else self._app)(scope, receive, send)
