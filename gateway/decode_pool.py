"""Threads that decode images off the event loop; the decoders let go of the GIL.

Under load a thread takes several images at once and hands their pixels back together: fewer wakes
of the event loop, and pixels that are ready together share a call to Triton.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from gateway.pixels import Pixels

# More at once would let a thread sit on images that others could start with.
_MAX_TAKEN: Final = 8


class _Job(NamedTuple):
    decode: Callable[[], Pixels]
    future: "asyncio.Future[Pixels]"


class DecodePool:
    """A fixed number of threads, for one event loop."""

    def __init__(self, threads: int) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads, after what they have been given; callers must be done."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    async def run(self, decode: Callable[[], Pixels]) -> Pixels:
        """The result of `decode`, called in a thread; not at all if the caller is gone by then."""
        future: asyncio.Future[Pixels] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(decode, future))
        return await future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job, *self._more()]
            loop = job.future.get_loop()
            loop.call_soon_threadsafe(_deliver, [(j.future, _run(j)) for j in jobs])

    def _more(self) -> list[_Job]:
        """A fair share of what waits."""
        share = min(_MAX_TAKEN - 1, self._jobs.qsize() // len(self._threads))
        taken: list[_Job] = []
        for _ in range(share):
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:
                # The end of a thread; it is for whoever asks next.
                self._jobs.put(None)
                break
            taken.append(job)
        return taken


def _run(job: _Job) -> Pixels | Exception | None:
    if job.future.done():
        return None
    try:
        return job.decode()
    except Exception as exc:
        return exc


def _deliver(
    results: list[tuple["asyncio.Future[Pixels]", Pixels | Exception | None]],
) -> None:
    for future, result in results:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        elif result is not None:
            future.set_result(result)
