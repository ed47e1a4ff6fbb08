"""Composition root: what the service is made of. Read this first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from gateway import __version__
from gateway.classifier import ImageClassifier
from gateway.errors import GatewayError
from gateway.logs import RequestLog, log
from gateway.metrics import Metrics, RequestMetrics
from gateway.models import ModelDirectory
from gateway.routes import (
    ROUTES,
    State,
    render_gateway_error,
    render_http_error,
    render_unexpected_error,
)
from gateway.settings import Settings
from gateway.triton import TritonClient


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application. Nothing is opened before its lifespan starts."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        async with TritonClient(settings.triton_url) as triton:
            models = ModelDirectory(triton)
            with closing(ImageClassifier(settings, triton, models, metrics)) as classifier:
                log.info("version %s, settings %s", __version__, settings)
                yield State(
                    settings=settings,
                    triton=triton,
                    models=models,
                    classifier=classifier,
                    metrics=metrics,
                )

    # Typed for handlers that know nothing of the state.
    exception_handlers: dict[Any, Any] = {
        GatewayError: render_gateway_error,
        HTTPException: render_http_error,
        Exception: render_unexpected_error,
    }
    app = Starlette(routes=ROUTES, lifespan=lifespan, exception_handlers=exception_handlers)
    # Outside Starlette's own stack, so that even its last-resort answer is counted and has an id.
    return RequestMetrics(RequestLog(app), metrics)
