"""`ThreadPool` gives each caller its own result, and skips work of cancelled callers."""

import asyncio
import threading

import numpy as np
import pytest

from gateway.concurrency import ThreadPool
from gateway.errors import InvalidImage
from gateway.tensors import Pixels

BOUND_S = 30


def pixels(value: int) -> Pixels:
    return np.full((1, 1, 3), value, np.uint8)


def test_each_caller_gets_its_own_result_or_error() -> None:
    """Each of 250 callers gets its own result or error from two threads."""

    def decode(value: int) -> Pixels:
        if value % 3 == 0:
            raise InvalidImage(str(value))
        return pixels(value)

    async def run() -> list[Pixels | BaseException]:
        pool = ThreadPool[Pixels](2, "decode")
        try:
            return await asyncio.gather(
                *(pool.run(lambda n=n: decode(n)) for n in range(250)),  # type: ignore[misc]  # a lambda's default
                return_exceptions=True,
            )
        finally:
            pool.close()

    for n, result in enumerate(asyncio.run(run())):
        if n % 3 == 0:
            assert isinstance(result, InvalidImage)
            assert str(result) == str(n)
        else:
            assert isinstance(result, np.ndarray)
            assert result.max() == n


def test_work_of_a_cancelled_caller_is_skipped() -> None:
    """The work of a caller that is cancelled while it waits for a thread is never done."""
    started, go = threading.Event(), threading.Event()
    decoded: list[int] = []

    def block() -> Pixels:
        started.set()
        assert go.wait(BOUND_S)
        return pixels(0)

    def decode() -> Pixels:
        decoded.append(1)
        return pixels(1)

    async def run() -> None:
        pool = ThreadPool[Pixels](1, "decode")
        first = asyncio.create_task(pool.run(block))
        assert await asyncio.to_thread(started.wait, BOUND_S)
        cancelled = asyncio.create_task(pool.run(decode))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        go.set()
        await first
        await pool.run(lambda: pixels(2))
        pool.close()

    asyncio.run(run())
    assert decoded == []


def test_finished_work_does_not_wait_for_queued_work() -> None:
    """A result is delivered at once, whatever long or cancelled work is queued behind it."""
    started, go = threading.Event(), threading.Event()
    end = threading.Event()

    def block() -> Pixels:
        started.set()
        assert go.wait(BOUND_S)
        return pixels(1)

    def take_long() -> Pixels:
        assert end.wait(BOUND_S)
        return pixels(2)

    async def run() -> None:
        pool = ThreadPool[Pixels](1, "decode")
        first = asyncio.create_task(pool.run(block))
        assert await asyncio.to_thread(started.wait, BOUND_S)
        long = asyncio.create_task(pool.run(take_long, is_long=True))
        second = asyncio.create_task(pool.run(lambda: pixels(3)))
        cancelled = asyncio.create_task(pool.run(lambda: pixels(4)))
        await asyncio.sleep(0)
        cancelled.cancel()
        go.set()

        async with asyncio.timeout(BOUND_S):
            assert (await first).max() == 1
            assert not long.done()
            end.set()
            assert (await second).max() == 3
            assert (await long).max() == 2
        pool.close()

    asyncio.run(run())


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_end_on_closing(threads: int) -> None:
    """All threads of a pool end when it is closed, also idle ones."""
    before = threading.active_count()

    async def run() -> None:
        pool = ThreadPool[Pixels](threads, "decode")
        await pool.run(lambda: pixels(1))
        assert threading.active_count() >= before + threads
        pool.close()

    asyncio.run(run())
    assert threading.active_count() == before
