"""Refuse callers without a valid token."""

from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response

from gateway.auth.tokens import bearer_token
from gateway.errors import Unauthorized
from gateway.http.state import State

Handler = Callable[[Request[State]], Awaitable[Response]]


def requires_token(handler: Handler) -> Handler:
    """Wrap a handler so that it serves only callers with a valid token; see `check_token`."""

    @wraps(handler)
    async def checked(request: Request[State]) -> Response:
        check_token(request.headers.get("authorization"), request.state)
        return await handler(request)

    return checked


def check_token(authorization: str | None, state: State) -> None:
    """Refuse a caller without a valid token. Without a file of tokens every caller is served.

    Raises:
        Unauthorized: The token is missing, malformed or unknown. The texts are the hosted API's.
    """
    tokens = state["tokens"]
    if tokens is None or (authorization is None and state["settings"].allow_anonymous):
        return
    if authorization is None:
        raise Unauthorized("Invalid username or password.")
    token = bearer_token(authorization)
    if token is None:
        raise Unauthorized("Invalid credentials in Authorization header")
    if not tokens.accepts(token):
        raise Unauthorized("Invalid username or password.")
