"""Work for a caller who has gone is given up, and only that."""

import asyncio

import pytest

from gateway.errors import ClientClosedRequest
from gateway.presence import Presence, WhilePresent


async def forever(presence: Presence, started: asyncio.Event) -> None:
    with WhilePresent(presence):
        started.set()
        await asyncio.Event().wait()


def test_work_ends_with_its_connection() -> None:
    """With an error of its own, not as a cancelled task."""

    async def run() -> asyncio.Task[None]:
        presence, started = Presence(), asyncio.Event()
        task = asyncio.create_task(forever(presence, started))
        await started.wait()
        presence.end()
        await asyncio.wait({task})
        assert task.cancelling() == 0
        return task

    assert isinstance(asyncio.run(run()).exception(), ClientClosedRequest)


def test_work_for_a_connection_that_has_ended_does_not_start() -> None:
    """It may have ended while the body was parsed."""

    async def run() -> None:
        presence, started = Presence(), asyncio.Event()
        presence.end()
        with pytest.raises(ClientClosedRequest):
            await forever(presence, started)
        assert not started.is_set()

    asyncio.run(run())


def test_another_cancellation_stays_one() -> None:
    """The server ends its tasks when it stops."""

    async def run() -> asyncio.Task[None]:
        presence, started = Presence(), asyncio.Event()
        task = asyncio.create_task(forever(presence, started))
        await started.wait()
        task.cancel()
        await asyncio.wait({task})
        return task

    assert asyncio.run(run()).cancelled()


def test_what_comes_after_the_block_is_not_cancelled() -> None:
    """The answer is written, or the connection kept for the next request."""

    async def run() -> bool:
        presence = Presence()
        with WhilePresent(presence):
            await asyncio.sleep(0)
        presence.end()
        await asyncio.sleep(0)
        return presence.has_ended

    assert asyncio.run(run())
