"""`Batching` sends items that are ready together in one call, and delays no item."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.concurrency import Batching


class Calls:
    """Records the batches. Each call waits until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [-item for item in items]


async def turns(number: int = 5) -> None:
    """Let the event loop run its ready tasks a few times."""
    for _ in range(number):
        await asyncio.sleep(0)


def test_single_item_is_sent_at_once_and_ready_items_share_a_call() -> None:
    """A single item is sent at once, and items that are ready together share the next call."""

    async def run() -> None:
        calls = Calls()
        batching = Batching(calls, max_items=8, max_calls=8)
        first = asyncio.create_task(batching.run(1))
        await turns()
        assert calls.batches == [[1]]
        others = [asyncio.create_task(batching.run(n)) for n in (2, 3, 4)]
        await turns()
        assert calls.batches == [[1], [2, 3, 4]]
        calls.go.set()
        assert await asyncio.gather(first, *others) == [-1, -2, -3, -4]

    asyncio.run(run())


def test_items_wait_while_all_calls_run() -> None:
    """While `max_calls` calls run, items wait, and the next call takes up to `max_items`."""

    async def run() -> None:
        calls = Calls()
        batching = Batching(calls, max_items=2, max_calls=1)
        tasks = []
        for n in range(5):
            tasks.append(asyncio.create_task(batching.run(n)))
            await turns()
        assert calls.batches == [[0]]
        calls.go.set()
        assert await asyncio.gather(*tasks) == [0, -1, -2, -3, -4]
        assert calls.batches == [[0], [1, 2], [3, 4]]

    asyncio.run(run())


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5), st.integers(1, 4))
def test_every_item_gets_its_own_result(pauses: list[int], items: int, calls: int) -> None:
    """Every item gets its own result, and calls and their items stay within their limits."""

    async def run() -> None:
        sizes: list[int] = []
        under_way = 0

        async def call(batch: Sequence[int]) -> list[int]:
            nonlocal under_way
            under_way += 1
            assert under_way <= calls
            sizes.append(len(batch))
            await turns(batch[0] % 3)
            under_way -= 1
            return [item * 2 for item in batch]

        batching = Batching(call, items, calls)
        tasks = []
        for n, pause in enumerate(pauses):
            tasks.append(asyncio.create_task(batching.run(n)))
            await turns(pause)
        assert await asyncio.gather(*tasks) == [2 * n for n in range(len(pauses))]
        assert sum(sizes) == len(pauses)
        assert max(sizes, default=0) <= items

    asyncio.run(run())


def test_cancelled_caller_drops_its_item_and_the_last_one_its_call() -> None:
    """A cancelled caller's waiting item is dropped; a call ends after its last caller."""

    async def run() -> None:
        calls = Calls()
        batching = Batching(calls, max_items=2, max_calls=1)
        under_way = [asyncio.create_task(batching.run(n)) for n in (1, 2)]
        await turns()
        waiting = asyncio.create_task(batching.run(3))
        await turns()
        waiting.cancel()
        under_way[0].cancel()
        await turns()
        assert calls.cancelled == 0
        under_way[1].cancel()
        await turns()
        assert calls.cancelled == 1
        calls.go.set()
        assert await batching.run(4) == -4
        assert calls.batches == [[1, 2], [4]]

    asyncio.run(run())


def test_error_of_a_call_reaches_all_its_callers() -> None:
    """An error of a call is raised to all its callers, and the next call is made as usual."""

    async def run() -> None:
        async def call(batch: Sequence[int]) -> list[int]:
            if 0 in batch:
                raise LookupError("zero")
            return list(batch)

        batching = Batching(call, max_items=8, max_calls=1)
        results = await asyncio.gather(batching.run(0), batching.run(1), return_exceptions=True)
        assert [type(result) for result in results] == [LookupError, LookupError]
        assert await batching.run(2) == 2

    with pytest.raises(LookupError):
        asyncio.run(asyncio.wait_for(_fails(), 1))
    asyncio.run(run())


async def _fails() -> None:
    async def call(_: Sequence[int]) -> list[int]:
        raise LookupError

    await Batching(call, 1, 1).run(1)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_call_is_bounded_by_the_size_of_its_items(sizes: list[int]) -> None:
    """Every item is in one call, in order; only a lone item may be larger than the bound."""

    async def run() -> list[list[int]]:
        calls = Calls()
        calls.go.set()
        batching = Batching(calls, 6, max_calls=1, size_of=lambda item: item, max_size=20)
        await asyncio.gather(*(batching.run(size) for size in sizes))
        return calls.batches

    batches = asyncio.run(run())

    assert [item for batch in batches for item in batch] == sizes
    assert all(len(batch) == 1 or sum(batch) <= 20 for batch in batches)
    for batch, following in pairwise(batches):
        assert len(batch) == 6 or sum(batch) + following[0] > 20, "a call was cut short"
