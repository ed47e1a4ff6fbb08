"""`Coalescing` makes one call for all callers that ask for the same key at the same time."""

import asyncio

import pytest

from gateway.concurrency import Coalescing


class Call:
    """Counts how often it is made. Each call waits until `go` is set."""

    def __init__(self) -> None:
        self.made = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.made += 1
        await self.go.wait()
        return self.made


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_simultaneous_callers_share_a_call_and_later_ones_do_not() -> None:
    """Callers with one key share a running call and learn who made it; a later one calls anew."""

    async def run() -> None:
        shared: Coalescing[str, int] = Coalescing()
        call, other = Call(), Call()
        tasks = [asyncio.create_task(shared.run("a", call)) for _ in range(3)]
        apart = asyncio.create_task(shared.run("b", other))
        await turn()
        call.go.set()
        other.go.set()
        assert await asyncio.gather(*tasks) == [(1, False), (1, True), (1, True)]
        assert await apart == (1, False)
        assert await shared.run("a", call) == (2, False)

    asyncio.run(run())


def test_cancelled_caller_does_not_disturb_the_others() -> None:
    """The other callers get a result when one that made or awaits the call is cancelled."""

    async def run() -> None:
        shared: Coalescing[str, int] = Coalescing()
        call = Call()
        tasks = [asyncio.create_task(shared.run("a", call)) for _ in range(4)]
        await turn()
        tasks[1].cancel()
        await turn()
        assert call.made == 1
        tasks[0].cancel()
        await turn()
        assert call.made == 2
        call.go.set()
        assert await asyncio.gather(*tasks[2:]) == [(2, False), (2, True)]
        assert all(task.cancelled() for task in tasks[:2])

    asyncio.run(run())


def test_error_is_raised_to_all_and_not_kept() -> None:
    """All callers of a failed call get its error, and the next caller makes a new call."""

    async def run() -> None:
        shared: Coalescing[str, int] = Coalescing()
        go = asyncio.Event()

        async def fail() -> int:
            await go.wait()
            raise LookupError("failed")

        tasks = [asyncio.create_task(shared.run("a", fail)) for _ in range(2)]
        await turn()
        go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [LookupError, LookupError]
        call = Call()
        call.go.set()
        assert await shared.run("a", call) == (1, False)

    asyncio.run(run())


def test_cancelling_the_last_caller_ends_the_call() -> None:
    """The call is cancelled together with its last caller."""

    async def run() -> None:
        shared: Coalescing[str, int] = Coalescing()
        ended = asyncio.Event()

        async def call() -> int:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return 0

        task = asyncio.create_task(shared.run("a", call))
        await turn()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(run())
