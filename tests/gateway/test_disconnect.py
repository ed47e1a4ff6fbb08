"""Work for a client that has left is given up, and only that."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import ClientClosedRequest
from gateway.http.classify import cancelled_on_disconnect


class Connection:
    """ASGI's `receive` after the body: it waits until the client leaves."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def work_forever(connection: Connection, started: asyncio.Event) -> None:
    async with cancelled_on_disconnect(connection.receive):
        started.set()
        await asyncio.Event().wait()


def outcome_of(interrupt: Callable[[Connection, "asyncio.Task[None]"], object]) -> BaseException:
    """What ends the work for a client once it is interrupted."""

    async def run() -> BaseException:
        connection, started = Connection(), asyncio.Event()
        task = asyncio.create_task(work_forever(connection, started))
        await started.wait()
        interrupt(connection, task)
        (error,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(error, BaseException)
        return error

    return asyncio.run(run())


def test_work_ends_when_the_client_leaves() -> None:
    """With an error of its own, not as a cancelled task."""
    error = outcome_of(lambda connection, _: connection.left.set())

    assert isinstance(error, ClientClosedRequest)


def test_another_cancellation_stays_one() -> None:
    """The server cancels its tasks when it stops."""
    error = outcome_of(lambda _, task: task.cancel())

    assert isinstance(error, asyncio.CancelledError)


def test_block_ends_without_a_disconnect() -> None:
    """Its result and its errors are those of the work, and no task is left behind."""

    async def run() -> None:
        receive = Connection().receive
        async with cancelled_on_disconnect(receive):
            await asyncio.sleep(0)
        with pytest.raises(ZeroDivisionError):
            async with cancelled_on_disconnect(receive):
                raise ZeroDivisionError
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
