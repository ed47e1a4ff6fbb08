"""Writes of one answer leave together, and none is left behind."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from gateway.protocol import JoinedWrites


class Recorder:
    """A transport that notes what reaches it."""

    def __init__(self) -> None:
        self.events: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.events.append(data)

    def close(self) -> None:
        self.events.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.events


def events_of(use: Callable[[JoinedWrites], Any]) -> list[bytes | str]:
    recorder = Recorder()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        use(JoinedWrites(cast(asyncio.Transport, recorder), loop))
        await asyncio.sleep(0)

    asyncio.run(run())
    return recorder.events


def test_head_and_body_are_one_write() -> None:
    """In their order."""

    def answer(transport: JoinedWrites) -> None:
        transport.write(b"head")
        transport.write(b"body")

    assert events_of(answer) == [b"headbody"]


def test_head_alone_leaves_at_the_next_turn() -> None:
    """The answer to HEAD has no body; an empty body changes nothing."""
    assert events_of(lambda transport: transport.write(b"head")) == [b"head"]

    def answer(transport: JoinedWrites) -> None:
        transport.write(b"head")
        transport.write(b"")

    assert events_of(answer) == [b"head"]


def test_nothing_is_written_to_a_connection_that_broke() -> None:
    """A transport that is closed already takes a write for a mistake of its owner."""
    recorder = Recorder()

    async def run() -> None:
        transport = JoinedWrites(cast(asyncio.Transport, recorder), asyncio.get_running_loop())
        transport.write(b"head")
        recorder.close()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert recorder.events == ["closed"]


def test_nothing_is_lost_on_closing() -> None:
    """What is held leaves first."""

    def answer(transport: JoinedWrites) -> None:
        transport.write(b"one")
        transport.write(b"two")
        transport.write(b"three")
        transport.close()
        assert transport.is_closing()

    assert events_of(answer) == [b"onetwo", b"three", "closed"]
