"""URLs as clients write them, made into those of the route table."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

# What Hugging Face's router puts before every path.
_ROUTER_PREFIX: Final = "/hf-inference"


class NormalizePath:
    """ASGI middleware: drop the router's prefix and trailing slashes; no redirect, no lost body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on; see the class."""
        if scope["type"] == "http":
            scope["path"] = normalized(scope["path"])
        await self._app(scope, receive, send)


def normalized(path: str) -> str:
    """The path of the route table for the path of a URL."""
    if path == _ROUTER_PREFIX or path.startswith(f"{_ROUTER_PREFIX}/"):
        path = path.removeprefix(_ROUTER_PREFIX)
    return path.rstrip("/") or "/"
