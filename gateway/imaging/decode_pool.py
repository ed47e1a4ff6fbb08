"""Threads that decode images off the event loop; the decoders let go of the GIL.

Under load pixels reach the loop several at a time: fewer wakes of it, and pixels that come together
share a call to Triton. With nothing left to decode they come at once.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, NamedTuple

from gateway.imaging.pixels import Pixels
from gateway.runtime.process import stay_on
from gateway.runtime.processors import cpus_of_threads

# More would have the first of them wait too long for the others.
_TOGETHER: Final = 12

_Future = asyncio.Future[Pixels]


class _Job(NamedTuple):
    decode: Callable[[], Pixels]
    future: _Future
    is_long: bool


class DecodePool:
    """A fixed number of threads, for the event loop that runs when it is made."""

    def __init__(self, threads: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[tuple[_Future, Pixels | Exception]] = deque()
        self._is_waking = False
        self._threads = [
            threading.Thread(target=self._work, args=(cpu,), name=f"decode-{n}", daemon=True)
            for n, cpu in enumerate(cpus_of_threads(threads))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads, after what they have been given; callers must be done."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    async def run(self, decode: Callable[[], Pixels], *, is_long: bool = False) -> Pixels:
        """The result of `decode`, called in a thread; not at all if the caller is gone by then.

        Args:
            decode: Work without side effects.
            is_long: It takes so long that what is done already should not wait for it.
        """
        future = self._loop.create_future()
        self._jobs.put(_Job(decode, future, is_long))
        try:
            result: Pixels = await future
            return result
        finally:
            # An error's traceback holds this frame. With the future, which holds the error, that
            # would be a cycle: the image's bytes would stay until Python's collector finds it.
            del future

    def _work(self, cpu: int | None) -> None:
        if cpu is not None:
            stay_on(cpu)
        while (job := self._jobs.get()) is not None:
            if job.is_long:
                self._wake()
            if not job.future.done():
                self._done.append((job.future, _outcome(job.decode)))
            # The thread would keep the image's bytes until its next job.
            del job
            if len(self._done) >= _TOGETHER or self._jobs.empty():
                self._wake()

    def _wake(self) -> None:
        # Without a lock: at worst the loop is woken once too often, for it clears the mark before
        # it looks at what is done.
        if self._done and not self._is_waking:
            self._is_waking = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False
        while self._done:
            future, result = self._done.popleft()
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
            del future, result


def _outcome(decode: Callable[[], Pixels]) -> Pixels | Exception:
    # Without the job: an error's traceback holds this frame, and a future that holds the error must
    # not be in it.
    try:
        return decode()
    except Exception as exc:
        return exc
