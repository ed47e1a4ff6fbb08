"""The route table, after `gateway.paths`: every URL that a client of Hugging Face's may hit."""

from typing import Final

from starlette.routing import Route

from gateway import discovery
from gateway.authorization import authorized
from gateway.classify import classify
from gateway.openapi import docs, docs_asset, openapi

_classify: Final = authorized(classify)

ROUTES: Final = [
    Route("/models/{model_id:path}/pipeline/{task}", _classify, methods=["POST"]),
    Route("/models/{model_id:path}", _classify, methods=["POST"]),
    Route("/pipeline/{task}/{model_id:path}", _classify, methods=["POST"]),
    # The default model: as a dedicated endpoint, the toolkit and SageMaker have it.
    Route("/", _classify, methods=["POST"]),
    Route("/pipeline/{task}", _classify, methods=["POST"]),
    Route("/predict", _classify, methods=["POST"]),
    Route("/invocations", _classify, methods=["POST"]),
    Route("/models/{model_id:path}/health", discovery.model_health),
    Route("/models/{model_id:path}/info", authorized(discovery.model_info)),
    Route("/models/{model_id:path}", authorized(discovery.model_info)),
    Route("/info", authorized(discovery.info)),
    Route("/status/{model_id:path}", authorized(discovery.status)),
    Route("/framework/{framework}", authorized(discovery.framework)),
    Route("/api/models/{model_id:path}", authorized(discovery.hub_model)),
    # Open to probes, to Prometheus and to readers.
    Route("/", discovery.root),
    Route("/health", discovery.health),
    Route("/ping", discovery.health),
    Route("/metrics", discovery.metrics),
    Route("/openapi.json", openapi),
    Route("/docs", docs),
    Route("/docs/{asset}", docs_asset),
]
