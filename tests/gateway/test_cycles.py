"""An error that passes through shared work leaves no reference cycle.

A cycle would hold the frames of the request, and with them its body.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from gateway.concurrency import Batching, Coalescing, ThreadPool
from gateway.tensors import Pixels
from tests.garbage import unreachable_objects


async def fail_in_a_call(_: Sequence[int]) -> Sequence[int]:
    await asyncio.sleep(0)
    raise ZeroDivisionError


async def through_batches() -> None:
    calls = Batching(fail_in_a_call, 4, 1)
    await asyncio.gather(*(calls.run(item) for item in range(6)), return_exceptions=True)


async def through_coalesced_calls() -> None:
    calls: Coalescing[str, Sequence[int]] = Coalescing()
    await asyncio.gather(
        *(calls.run("key", lambda: fail_in_a_call([])) for _ in range(3)), return_exceptions=True
    )


def fail_to_decode() -> Pixels:
    raise ZeroDivisionError


async def through_the_thread_pool() -> None:
    pool = ThreadPool[Pixels](1, "decode")
    try:
        await asyncio.gather(*(pool.run(fail_to_decode) for _ in range(3)), return_exceptions=True)
    finally:
        pool.close()


@pytest.mark.parametrize("use", [through_batches, through_coalesced_calls, through_the_thread_pool])
def test_error_leaves_no_cycle(use: Callable[[], Awaitable[None]]) -> None:
    """An error leaves no cycle, also when several callers share a call or wait for one."""

    async def run() -> list[str]:
        await use()
        with unreachable_objects() as found:
            await use()
        return [repr(o) for o in found if isinstance(o, BaseException)]

    assert asyncio.run(run()) == []
