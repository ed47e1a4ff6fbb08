"""One call for all who want the same at the same moment."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _CallerGone(Exception):
    """Whoever made the call was cancelled; another has to make it."""


class SharedCalls(Generic[K, V]):
    """Calls in progress by key, within one event loop."""

    def __init__(self) -> None:
        self._calls: dict[K, asyncio.Future[V] | None] = {}

    async def run(self, key: K, call: Callable[[], Awaitable[V]]) -> tuple[V, bool]:
        """The result of the call for `key`, and whether another caller had made it.

        The first caller makes the call itself, as most have no company. If it is cancelled, one of
        the others makes it anew. An error is raised to all of them.
        """
        while key in self._calls:
            future = self._calls[key]
            if future is None:
                future = self._calls[key] = asyncio.get_running_loop().create_future()
            try:
                # Shielded: one that leaves must not take the others' result along.
                return await asyncio.shield(future), True
            except _CallerGone:
                continue
            finally:
                # As in `gateway.imaging.decode_pool`: no cycle of an error and a future.
                del future
        self._calls[key] = None
        try:
            result = await call()
        except BaseException as exc:
            _fail(self._calls.pop(key), exc)
            raise
        waited_for = self._calls.pop(key)
        if waited_for is not None:
            waited_for.set_result(result)
        return result, False


def _fail(waited_for: asyncio.Future[V] | None, exc: BaseException) -> None:
    """Raise the error of a call to all others who wait for it, if anybody does."""
    if waited_for is None:
        return
    waited_for.set_exception(exc if isinstance(exc, Exception) else _CallerGone())
    # Retrieved: perhaps nobody is left to do so.
    waited_for.exception()
