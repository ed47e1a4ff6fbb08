"""The gateway passes pixels through memory that Triton maps, as Triton reports."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from tests.pictures import photo
from tests.stack import BIT_EQUAL, WAIT_TIMEOUT_S, Stack, running_stack, wait_until

SERVE_BYTES = 16 * 1024 * 1024
MORE_THAN_ANY_MACHINE_HAS = 2**50
MODEL = "/models/test/vit"


def regions(stack: Stack) -> dict[str, int]:
    """Size in bytes of each region that Triton has registered, by name."""

    async def ask() -> Any:
        async with InferenceServerClient(stack.triton_grpc_url) as triton:
            return await triton.get_system_shared_memory_status()

    return {name: region.byte_size for name, region in asyncio.run(ask()).regions.items()}


def forget_regions(stack: Stack) -> None:
    """Have Triton forget all regions, as after a restart."""

    async def ask() -> None:
        async with InferenceServerClient(stack.triton_grpc_url) as triton:
            await triton.unregister_system_shared_memory()

    asyncio.run(ask())


def scores(client: httpx.Client) -> Any:
    answer = client.post(MODEL, content=photo("china"), headers={"x-use-cache": "false"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def share(stack: Stack, client: httpx.Client) -> None:
    """Have the gateway register its memory, and wait until Triton has it."""
    scores(client)
    wait_until(lambda: bool(regions(stack)))


def test_memory_is_shared_and_leaves_no_name(stack: Stack, client: httpx.Client) -> None:
    """Triton has one region of the size that `vitriton serve` sets, and `/dev/shm` no file."""
    share(stack, client)

    assert list(regions(stack).values()) == [SERVE_BYTES]
    assert not list(Path("/dev/shm").glob("vitriton-pixels-*"))


@pytest.mark.pixels
def test_scores_equal_those_of_pixels_sent_over_grpc(
    stack: Stack, client: httpx.Client, repository: Path, tmp_path: Path
) -> None:
    """Scores equal those of a stack that sends pixels over gRPC and registers no region."""
    share(stack, client)
    with (
        running_stack(
            ["test/vit"], repository, tmp_path, **BIT_EQUAL, GATEWAY_SHARED_MEMORY_BYTES="0"
        ) as sending,
        httpx.Client(base_url=sending.url, timeout=WAIT_TIMEOUT_S) as other,
    ):
        assert scores(other) == scores(client)
        assert not regions(sending)


def test_forgotten_region_is_replaced(stack: Stack, client: httpx.Client) -> None:
    """After Triton forgets the region, no request fails, and a new region is registered."""
    share(stack, client)
    before, known = scores(client), set(regions(stack))

    forget_regions(stack)

    assert not regions(stack)
    assert scores(client) == before
    share(stack, client)
    assert set(regions(stack)).isdisjoint(known)
    assert scores(client) == before


def test_pixels_are_sent_if_there_is_no_memory_to_share(repository: Path, tmp_path: Path) -> None:
    """Without enough memory, pixels are sent over gRPC and one line names the setting."""
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
