"""One call for all who want the same at the same moment."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class _Call(Generic[V]):
    task: asyncio.Task[V]
    waiting: int = 0


class SharedCalls(Generic[K, V]):
    """Calls in progress by key, within one event loop."""

    def __init__(self) -> None:
        self._calls: dict[K, _Call[V]] = {}

    async def run(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> tuple[V, bool]:
        """The result of the call for `key`, and whether another caller had started it.

        One caller that goes away does not disturb the others; when all have gone, the call is
        cancelled. An error is raised to all of them.
        """
        call = self._calls.get(key)
        is_shared = call is not None
        if call is None:
            call = _Call(asyncio.create_task(start()))
            self._calls[key] = call
        call.waiting += 1
        try:
            return await asyncio.shield(call.task), is_shared
        finally:
            call.waiting -= 1
            # Out as soon as it ends: who comes next must not join a call that is over.
            if (call.task.done() or call.waiting == 0) and self._calls.get(key) is call:
                del self._calls[key]
            if call.waiting == 0:
                call.task.cancel()
