"""Give up the work for a client that has closed its connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from starlette.types import Receive

from gateway.errors import ClientClosedRequest


@asynccontextmanager
async def cancelled_on_disconnect(receive: Receive) -> AsyncIterator[None]:
    """A block that is cancelled when the client closes its connection.

    Args:
        receive: ASGI's, of a request whose body has been read: its next message is the disconnect.

    Raises:
        ClientClosedRequest: On leaving the block. The client has closed its connection.
    """
    work = cast("asyncio.Task[None]", asyncio.current_task())
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left = True
        work.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # Another cancellation of the same task, such as the server's stop, stays one.
        if has_left and work.uncancel() == 0:
            raise client_closed_request() from None
        raise
    finally:
        watcher.cancel()


def client_closed_request() -> ClientClosedRequest:
    """The error of a request whose client does not read the answer."""
    return ClientClosedRequest("The client closed the connection")
