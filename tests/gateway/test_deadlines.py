"""A block ends at its deadline, each at its own, and nothing else is cancelled."""

import asyncio
from itertools import permutations
from unittest.mock import patch

import pytest

from gateway.deadlines import Deadlines

# Seconds; far more than any of these blocks needs, and far less than anybody would wait.
SOON = 0.02
LATER = 300.0


async def forever(deadlines: Deadlines, deadline: float, started: asyncio.Event) -> None:
    with deadlines.within(deadline):
        started.set()
        await asyncio.Event().wait()


async def started_task(deadlines: Deadlines, deadline: float) -> asyncio.Task[None]:
    started = asyncio.Event()
    task = asyncio.create_task(forever(deadlines, deadline, started))
    await started.wait()
    return task


@pytest.mark.parametrize("seconds", [SOON, 0.0, -1.0])
def test_a_block_ends_at_its_deadline(seconds: float) -> None:
    """With TimeoutError, and its task can go on; also if the deadline has passed before it."""

    async def run() -> int:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        with pytest.raises(TimeoutError):
            await forever(Deadlines(), deadline, asyncio.Event())
        assert loop.time() >= deadline
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(run()) == 0


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_each_block_ends_at_its_own_deadline(order: tuple[int, ...]) -> None:
    """In whichever order they start."""

    async def run() -> list[int]:
        deadlines, ended = Deadlines(), list[int]()
        now = asyncio.get_running_loop().time()

        async def block(n: int) -> None:
            with pytest.raises(TimeoutError):
                await forever(deadlines, now + (n + 1) * SOON, asyncio.Event())
            ended.append(n)

        await asyncio.gather(*map(block, order))
        return ended

    assert asyncio.run(run()) == sorted(order)


def test_what_comes_after_the_block_is_not_cancelled() -> None:
    """Its deadline passes while the task waits for something else."""

    async def run() -> None:
        loop, deadlines = asyncio.get_running_loop(), Deadlines()
        deadline = loop.time() + SOON
        with deadlines.within(deadline):
            pass
        passed = asyncio.Event()
        loop.call_at(deadline + SOON, passed.set)
        with deadlines.within(deadline + LATER):
            await passed.wait()

    asyncio.run(run())


def test_another_cancellation_stays_one() -> None:
    """The server ends its tasks when it stops, and a caller may go."""

    async def run() -> asyncio.Task[None]:
        task = await started_task(Deadlines(), asyncio.get_running_loop().time() + LATER)
        task.cancel()
        await asyncio.wait({task})
        return task

    assert asyncio.run(run()).cancelled()


def test_a_cancellation_beside_the_deadlines_stays_one() -> None:
    """Both come in the same turn of the loop: whoever cancelled is not to be ignored."""

    async def run() -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SOON
        task = await started_task(Deadlines(), deadline)
        loop.call_at(deadline, task.cancel)
        await asyncio.wait({task})
        return task

    assert asyncio.run(run()).cancelled()


def test_an_error_of_the_block_stays_what_it_is() -> None:
    """Also of one that takes its cancellation for something else."""

    async def run() -> None:
        with Deadlines().within(asyncio.get_running_loop().time() + SOON):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as exc:
                raise LookupError from exc

    with pytest.raises(LookupError):
        asyncio.run(run())


def test_a_block_is_cancelled_once() -> None:
    """What it does to clean up may wait, while others' deadlines pass."""

    async def run() -> bool:
        deadlines, cleaned_up = Deadlines(), asyncio.Event()
        deadline = asyncio.get_running_loop().time() + SOON
        other = await started_task(deadlines, deadline + SOON)

        async def block() -> None:
            with deadlines.within(deadline):
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.wait({other})
                    cleaned_up.set()

        with pytest.raises(TimeoutError):
            await block()
        assert isinstance(other.exception(), TimeoutError)
        return cleaned_up.is_set()

    assert asyncio.run(run())


def test_blocks_share_a_timer() -> None:
    """That is what they are for."""

    async def run() -> int:
        loop, deadlines = asyncio.get_running_loop(), Deadlines()
        deadline = loop.time() + LATER
        with patch.object(loop, "call_at", wraps=loop.call_at) as call_at:
            for n in range(100):
                with deadlines.within(deadline + n):
                    pass
        return call_at.call_count

    assert asyncio.run(run()) == 1
