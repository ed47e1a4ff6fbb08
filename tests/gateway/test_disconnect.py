"""`cancelled_on_disconnect` ends the work for a client that closes its connection."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import ClientClosedRequest
from gateway.http.classify import cancelled_on_disconnect


class Connection:
    """ASGI's `receive` after the body: waits until the client closes its connection."""

    def __init__(self) -> None:
        self.is_closed = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.is_closed.wait()
        return {"type": "http.disconnect"}


async def work_forever(connection: Connection, started: asyncio.Event) -> None:
    async with cancelled_on_disconnect(connection.receive):
        started.set()
        await asyncio.Event().wait()


def outcome_of(interrupt: Callable[[Connection, "asyncio.Task[None]"], object]) -> BaseException:
    """The error that ends the work after `interrupt` was called."""

    async def run() -> BaseException:
        connection, started = Connection(), asyncio.Event()
        task = asyncio.create_task(work_forever(connection, started))
        await started.wait()
        interrupt(connection, task)
        (error,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(error, BaseException)
        return error

    return asyncio.run(run())


def test_closed_connection_ends_the_work() -> None:
    """A closed connection ends the work with `ClientClosedRequest`, not as a cancelled task."""
    error = outcome_of(lambda connection, _: connection.is_closed.set())

    assert isinstance(error, ClientClosedRequest)


def test_other_cancellation_is_passed_on() -> None:
    """A task that the server cancels, as it does on stopping, ends with `CancelledError`."""
    error = outcome_of(lambda _, task: task.cancel())

    assert isinstance(error, asyncio.CancelledError)


def test_block_without_a_disconnect_leaves_no_task() -> None:
    """Without a disconnect, results and errors of the work pass, and no task is left running."""

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
