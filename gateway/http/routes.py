"""The route table, after `gateway.http.paths`: every URL that a Hugging Face client may hit."""

from typing import Final

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http import discovery
from gateway.http.authorization import authorized
from gateway.http.classify import classify
from gateway.http.openapi import docs, docs_asset, openapi
from gateway.http.paths import classification_target, normalized


class Dispatch:
    """ASGI middleware: normalise the path, and pass what classifies by Starlette's router.

    No redirect, so that no client loses a body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on; see the class."""
        if scope["type"] == "http":
            scope["path"] = normalized(scope["path"])
            if scope["method"] == "POST":
                target = classification_target(scope["path"])
                if target is not None:
                    scope["target"] = target
                    await classify(scope, receive, send)
                    return
        await self._app(scope, receive, send)


class _Classify:
    """`classify` as Starlette recognises an ASGI application: not as a function."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await classify(scope, receive, send)


ROUTES: Final = [
    # `Dispatch` has taken every POST to these; they are here for the answers to other methods.
    *(
        Route(path, _Classify(), methods=["POST"])
        for path in (
            "/models/{model_id:path}",
            "/pipeline/{task}/{model_id:path}",
            # The default model: as a dedicated endpoint, the toolkit and SageMaker have it.
            *("/", "/pipeline/{task}", "/predict", "/invocations"),
        )
    ),
    Route("/models/{model_id:path}/health", discovery.model_health),
    Route("/models/{model_id:path}/info", authorized(discovery.model_info)),
    Route("/models/{model_id:path}", authorized(discovery.model_info)),
    Route("/models", authorized(discovery.models)),
    Route("/info", authorized(discovery.info)),
    Route("/status/{model_id:path}", authorized(discovery.status)),
    Route("/framework/{framework}", authorized(discovery.framework)),
    Route("/api/models", authorized(discovery.hub_models)),
    # Open as on the hub: the newest clients ask it without the token they were given.
    Route("/api/models/{model_id:path}", discovery.hub_model),
    # Open to probes, to Prometheus and to readers.
    Route("/", discovery.root),
    Route("/health", discovery.health),
    Route("/ping", discovery.health),
    Route("/metrics", discovery.metrics),
    Route("/openapi.json", openapi),
    Route("/docs", docs),
    Route("/docs/{asset}", docs_asset),
]
