"""Pixels in memory that Triton maps, by Triton's own account of it."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
from tritonclient.grpc.aio import InferenceServerClient

from tests.pictures import photo
from tests.stack import BIT_EQUAL, WAIT_TIMEOUT_S, Stack, running_stack, wait_until

SERVE_BYTES = 16 * 1024 * 1024
MORE_THAN_ANY_MACHINE_HAS = 2**50
MODEL = "/models/test/vit"


def regions(stack: Stack) -> dict[str, int]:
    """Bytes of each region that Triton has, by name."""

    async def ask() -> Any:
        async with InferenceServerClient(stack.triton_grpc_url) as triton:
            return await triton.get_system_shared_memory_status()

    return {name: region.byte_size for name, region in asyncio.run(ask()).regions.items()}


def forget_regions(stack: Stack) -> None:
    """As if Triton had started anew."""

    async def ask() -> None:
        async with InferenceServerClient(stack.triton_grpc_url) as triton:
            await triton.unregister_system_shared_memory()

    asyncio.run(ask())


def scores(client: httpx.Client) -> Any:
    answer = client.post(MODEL, content=photo("china"), headers={"x-use-cache": "false"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def share(stack: Stack, client: httpx.Client) -> None:
    """Have the gateway register its memory, which the first request is not kept waiting for."""
    scores(client)
    wait_until(lambda: bool(regions(stack)))


def test_memory_is_shared_and_leaves_no_name(stack: Stack, client: httpx.Client) -> None:
    """One region of what `vitriton serve` sets, gone from `/dev/shm` as soon as both map it."""
    share(stack, client)

    assert list(regions(stack).values()) == [SERVE_BYTES]
    assert not list(Path("/dev/shm").glob("vitriton-pixels-*"))


def test_scores_are_those_of_pixels_that_are_sent(
    stack: Stack, client: httpx.Client, repository: Path, tmp_path: Path
) -> None:
    """And without the setting nothing is shared."""
    share(stack, client)
    with (
        running_stack(
            ["test/vit"], repository, tmp_path, **BIT_EQUAL, GATEWAY_SHARED_MEMORY_BYTES="0"
        ) as sending,
        httpx.Client(base_url=sending.url, timeout=WAIT_TIMEOUT_S) as other,
    ):
        assert scores(other) == scores(client)
        assert not regions(sending)


def test_triton_that_has_forgotten_the_memory_gets_the_pixels(
    stack: Stack, client: httpx.Client
) -> None:
    """No request fails, and the next ones are shared again."""
    share(stack, client)
    before, known = scores(client), set(regions(stack))

    forget_regions(stack)

    assert not regions(stack)
    assert scores(client) == before
    share(stack, client)
    assert set(regions(stack)).isdisjoint(known)
    assert scores(client) == before


def test_memory_that_is_not_there_is_no_reason_to_fail(repository: Path, tmp_path: Path) -> None:
    """One line says so, with the setting."""
    with (
        running_stack(
            ["test/vit"],
            repository,
            tmp_path,
            GATEWAY_SHARED_MEMORY_BYTES=str(MORE_THAN_ANY_MACHINE_HAS),
        ) as stack,
        httpx.Client(base_url=stack.url, timeout=WAIT_TIMEOUT_S) as client,
    ):
        for _ in range(3):
            scores(client)
        assert not regions(stack)
    (line,) = [line for line in stack.rest() if "does not share memory" in line]
    assert "GATEWAY_SHARED_MEMORY_BYTES" in line
