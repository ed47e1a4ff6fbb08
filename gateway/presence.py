"""Whether the caller still waits: work for one who has gone is given up.

ASGI would tell by another message; waiting for it takes a task for each request.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from gateway.errors import ClientClosedRequest

EXTENSION: Final = "vitriton.presence"
"""Key of a connection's `Presence` among the ASGI scope's extensions."""


class Presence:
    """One connection's: the server tells when it ends, whoever works for it wants to know."""

    def __init__(self) -> None:
        self.has_ended = False
        self._on_end: Callable[[], object] | None = None

    def end(self) -> None:
        """The connection has ended."""
        self.has_ended = True
        if self._on_end is not None:
            self._on_end()

    def watch(self, on_end: Callable[[], object] | None) -> None:
        """Call this when it ends, instead of the last one; one request is worked on at a time."""
        self._on_end = on_end


class WhilePresent:
    """Cancels what is done in its block once the connection has ended.

    Raises:
        ClientClosedRequest: It has.
    """

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    def __enter__(self) -> None:
        if self._presence.has_ended:
            raise gone()
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        self._presence.watch(self._task.cancel)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._presence.watch(None)
        if self._presence.has_ended:
            self._task.uncancel()
            if kind is asyncio.CancelledError:
                raise gone()


def gone() -> ClientClosedRequest:
    """The error of a request that nobody waits for."""
    return ClientClosedRequest("The client closed the connection")
