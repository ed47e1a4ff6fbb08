"""Which function answers which endpoint of `table`."""

from collections.abc import Callable
from typing import Any, Final

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import Route

from gateway.http import discovery, openapi
from gateway.http.authorization import Handler, requires_token
from gateway.http.classify import ClassifyEndpoint
from gateway.http.table import ENDPOINTS, Endpoint

_HANDLERS: Final[dict[str, Handler]] = {
    handler.__name__: handler
    for handler in (
        discovery.framework,
        discovery.health,
        discovery.hub_model,
        discovery.hub_models,
        discovery.info,
        discovery.metrics,
        discovery.model_health,
        discovery.model_info,
        discovery.models,
        discovery.root,
        discovery.status,
        openapi.docs,
        openapi.docs_asset,
        openapi.openapi,
    )
}


class _ModelId(PathConvertor):
    """A model id in a path. Unlike Starlette's `path` it holds line breaks, and is never empty."""

    regex = "(?s:.+)"


register_url_convertor("model_id", _ModelId())


def _route(endpoint: Endpoint) -> Route:
    path = endpoint.path.replace("{model_id}", "{model_id:model_id}")
    handler: Callable[..., Any]
    if endpoint.handler == "classify":
        # Checks the token itself.
        handler = ClassifyEndpoint()
    elif endpoint.is_open:
        handler = _HANDLERS[endpoint.handler]
    else:
        handler = requires_token(_HANDLERS[endpoint.handler])
    return Route(path, handler, methods=[endpoint.method])


ROUTES: Final = [_route(endpoint) for endpoint in ENDPOINTS]
