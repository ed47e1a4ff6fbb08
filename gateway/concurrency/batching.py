"""Carry what is ready at the same moment in one call, without waiting for company."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class PackedCalls(Generic[T, R]):
    """Calls for many items each, within one event loop.

    An item leaves at the next turn of the loop, with all others that came in the same one. Only
    when `max_calls` are under way does it wait for one of them to end, and then shares a call with
    those that have come since.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        max_items: int,
        max_calls: int,
    ) -> None:
        """Take the function that answers items, in their order, and its bounds.

        Args:
            call: Its error becomes that of every item.
            max_items: Most items in one call.
            max_calls: Most calls under way.
        """
        self._call = call
        self._max_items = max_items
        self._max_calls = max_calls
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._is_scheduled = False

    async def run(self, item: T) -> R:
        """The item's result; a caller that is cancelled takes its item along.

        A call goes on as long as somebody waits for one of its items.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._start)
        try:
            return await future
        finally:
            # As in `gateway.imaging.decode_pool`: no cycle of an error and a future.
            del future

    def _start(self) -> None:
        self._is_scheduled = False
        while self._waiting and len(self._calls) < self._max_calls:
            pack: list[tuple[T, asyncio.Future[R]]] = []
            while self._waiting and len(pack) < self._max_items:
                item, future = self._waiting.popleft()
                if not future.done():
                    pack.append((item, future))
            if pack:
                task = asyncio.create_task(self._run(pack))
                self._calls.add(task)
                task.add_done_callback(self._ended)
                _cancel_when_all_gone(task, [future for _, future in pack])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._start()

    async def _run(self, pack: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._call([item for item, _ in pack])
        except Exception as exc:
            # The pack must not stay in this frame, which the error's traceback holds.
            while pack:
                _, future = pack.pop()
                if not future.done():
                    future.set_exception(exc)
                del future
            return
        for (_, future), result in zip(pack, results, strict=True):
            if not future.done():
                future.set_result(result)


def _cancel_when_all_gone(task: asyncio.Task[None], futures: list[asyncio.Future[R]]) -> None:
    left = len(futures)

    def gone(_: asyncio.Future[R]) -> None:
        nonlocal left
        left -= 1
        # After an answer the task ends by itself: it has one step to go.
        if left == 0 and all(future.cancelled() for future in futures):
            task.cancel()

    for future in futures:
        future.add_done_callback(gone)
