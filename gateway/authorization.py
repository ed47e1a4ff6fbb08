"""Who may call an endpoint."""

from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import Unauthorized
from gateway.state import State
from gateway.tokens import bearer_token

Endpoint = Callable[[Request[State]], Awaitable[Response]]


def authorized(endpoint: Endpoint) -> Endpoint:
    """The endpoint for those who may call it; 401 for others, with the hosted API's texts.

    Without a file of tokens that is everyone.
    """

    @wraps(endpoint)
    async def checked(request: Request[State]) -> Response:
        _check(request)
        return await endpoint(request)

    return checked


def _check(request: Request[State]) -> None:
    tokens = request.state["tokens"]
    if tokens is None:
        return
    header = request.headers.get("authorization")
    if header is None:
        if request.state["settings"].allow_anonymous:
            return
        raise Unauthorized("Invalid username or password.")
    token = bearer_token(header)
    if token is None:
        raise Unauthorized("Invalid credentials in Authorization header")
    if not tokens.accepts(token):
        raise Unauthorized("Invalid username or password.")
