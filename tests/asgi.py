"""Call the gateway's ASGI application in the process of the tests, without an HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message

from gateway.app import create_app
from gateway.settings import Settings


class InProcessGateway:
    """A started application, called in the running event loop."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a POST and return the status of its answer."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "state": self._state.copy(),
        }
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        status = 0

        async def receive() -> Message:
            if messages:
                return messages.pop()
            # The client keeps its connection open.
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)

        await self._app(scope, receive, send)
        return status


@asynccontextmanager
async def in_process_gateway(settings: Settings) -> AsyncIterator[InProcessGateway]:
    """Start the application, and shut it down at the end of the block."""
    app, state = create_app(settings), dict[str, Any]()
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()

    async def live() -> None:
        await app({"type": "lifespan", "state": state}, to_app.get, from_app.put)

    lifespan = asyncio.create_task(live())
    await to_app.put({"type": "lifespan.startup"})
    assert (await from_app.get())["type"] == "lifespan.startup.complete"
    try:
        yield InProcessGateway(app, state)
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        await lifespan
