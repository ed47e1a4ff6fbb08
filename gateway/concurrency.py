"""How calls run at the same time: admitted, coalesced, batched, and in threads.

Nothing in here knows what the calls do. Each class belongs to one event loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from queue import SimpleQueue
from typing import Final, Generic, NamedTuple, TypeVar

from gateway.errors import Overloaded

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")

# Results that a thread keeps back at most, so that the first of them does not wait long.
_MAX_UNDELIVERED: Final = 12


class Admission:
    """A context manager that admits a limited number of requests at a time.

    Raises:
        Overloaded: On entering, if the limit is reached. No request waits for a place.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted = 0

    def __enter__(self) -> None:
        if self._admitted >= self._limit:
            raise Overloaded(
                f"Model is overloaded: {self._limit} requests are in flight"
                " (GATEWAY_MAX_INFLIGHT); try again"
            )
        self._admitted += 1

    def __exit__(self, *_: object) -> None:
        self._admitted -= 1


class _CallCancelled(Exception):
    """The caller that made the call was cancelled; another caller has to make it."""


class Coalescing(Generic[K, R]):
    """Makes one call for all callers that ask for the same key at the same time."""

    def __init__(self) -> None:
        # None until a second caller waits: most calls have one caller.
        self._calls: dict[K, asyncio.Future[R] | None] = {}

    async def run(self, key: K, call: Callable[[], Awaitable[R]]) -> tuple[R, bool]:
        """The result of the call for `key`, and whether another caller made the call.

        The first caller makes the call. If the first caller is cancelled, the next one makes the
        call again. All callers get the error of a failed call.
        """
        while key in self._calls:
            future = self._calls[key]
            if future is None:
                future = self._calls[key] = asyncio.get_running_loop().create_future()
            try:
                # Shielded: the cancellation of one caller must not cancel the others' future.
                return await asyncio.shield(future), True
            except _CallCancelled:
                continue
            finally:
                # See `ThreadPool.run`: no reference cycle of an error and a future.
                del future
        self._calls[key] = None
        try:
            result = await call()
        except BaseException as exc:
            # Cancellation too: the callers that wait must not wait for ever.
            _fail(self._calls.pop(key), exc)
            raise
        future = self._calls.pop(key)
        if future is not None:
            future.set_result(result)
        return result, False


def _fail(future: asyncio.Future[R] | None, exc: BaseException) -> None:
    """Raise the error of a call to all callers that wait for the call."""
    if future is None:
        return
    future.set_exception(exc if isinstance(exc, Exception) else _CallCancelled())
    # Marks the exception as retrieved, in case no caller is left to retrieve it.
    future.exception()


class Batching(Generic[T, R]):
    """Makes one call for several items.

    An item leaves at the next turn of the event loop, together with all items that arrived in the
    same turn. When `max_calls` calls are running, items wait until one of them ends.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        max_items: int,
        max_calls: int,
        size_of: Callable[[T], int] = lambda _: 0,
        max_size: int = 0,
    ) -> None:
        """Take the function that answers items, in their order, and its bounds.

        Args:
            call: Its error becomes the error of every item of the batch.
            max_items: Most items in one call.
            max_calls: Most calls that run at the same time.
            size_of: Size of an item; the first one of a call may have any.
            max_size: Most size of all items in one call.
        """
        self._call = call
        self._size_of = size_of
        self._max_size = max_size
        self._max_items = max_items
        self._max_calls = max_calls
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._is_scheduled = False

    async def run(self, item: T) -> R:
        """The item's result.

        A caller that is cancelled withdraws its item. A call is cancelled when every caller of its
        items is cancelled.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._start_calls)
        try:
            return await future
        finally:
            # See `ThreadPool.run`: no reference cycle of an error and a future.
            del future

    def _start_calls(self) -> None:
        self._is_scheduled = False
        while self._waiting and len(self._calls) < self._max_calls:
            batch = self._next_batch()
            if batch:
                task = asyncio.create_task(self._run_call(batch))
                self._calls.add(task)
                task.add_done_callback(self._on_call_end)
                _cancel_with_last_caller(task, [future for _, future in batch])

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        size = 0
        while self._waiting and len(batch) < self._max_items:
            item, future = self._waiting[0]
            size += 0 if future.done() else self._size_of(item)
            if batch and size > self._max_size:
                break
            self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch

    def _on_call_end(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._start_calls()

    async def _run_call(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._call([item for item, _ in batch])
        # Any error: every caller gets the error of its call.
        except Exception as exc:
            # The traceback holds this frame, so the frame must not hold the batch.
            while batch:
                _, future = batch.pop()
                if not future.done():
                    future.set_exception(exc)
                del future
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


def _cancel_with_last_caller(task: asyncio.Task[None], futures: list[asyncio.Future[R]]) -> None:
    """Cancel the task when the last of the futures is cancelled."""
    pending = len(futures)

    def on_done(_: asyncio.Future[R]) -> None:
        nonlocal pending
        pending -= 1
        if pending == 0 and all(future.cancelled() for future in futures):
            task.cancel()

    for future in futures:
        future.add_done_callback(on_done)


class _Job(NamedTuple, Generic[R]):
    work: Callable[[], R]
    future: asyncio.Future[R]
    is_long: bool


class ThreadPool(Generic[R]):
    """A fixed number of threads for work that releases the GIL.

    While work waits in the queue, the threads deliver results several at a time: the event loop
    wakes less often, and results that arrive together share a batch. With an empty queue each
    result is delivered at once.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job[R] | None] = SimpleQueue()
        self._results: deque[tuple[asyncio.Future[R], R | Exception]] = deque()
        self._is_delivery_scheduled = False
        self._threads = [
            threading.Thread(target=self._run_jobs, name=f"{name}-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads after the work in the queue; no caller may wait any more."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    async def run(self, work: Callable[[], R], *, is_long: bool = False) -> R:
        """The result of `work`, called in a thread. Cancelled callers' work is not started.

        Args:
            work: Has no side effects.
            is_long: It takes so long that finished results must be delivered before it starts.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        self._jobs.put(_Job(work, future, is_long))
        try:
            return await future
        finally:
            # An error's traceback holds this frame, and the future holds the error. Without the
            # reference to the future there is no cycle that would keep a request's body.
            del future

    def _run_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.is_long:
                self._schedule_delivery()
            if not job.future.done():
                self._results.append((job.future, _result_of(job.work)))
            # Otherwise the thread would keep the job's image until its next job.
            del job
            if len(self._results) >= _MAX_UNDELIVERED or self._jobs.empty():
                self._schedule_delivery()

    def _schedule_delivery(self) -> None:
        # No lock: `_deliver` clears the mark before it reads the results, so the worst case is one
        # delivery too many.
        if self._results and not self._is_delivery_scheduled:
            self._is_delivery_scheduled = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_delivery_scheduled = False
        while self._results:
            future, result = self._results.popleft()
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
            del future, result


def _result_of(work: Callable[[], R]) -> R | Exception:
    # A function of its own: the error's traceback holds this frame, which must not hold the future.
    try:
        return work()
    # Any error: the caller gets it.
    except Exception as exc:
        return exc
