"""A classification passes the modules that docs/architecture.md lists."""

import asyncio
import re
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest
import tritonclient.grpc

import gateway
from gateway.settings import Settings
from tests.asgi import in_process_gateway
from tests.pictures import encode, gradient
from tests.stack import ROOT, Stack, wait_until

PACKAGE = Path(gateway.__file__).parent
MAX_MODULES = 15


def listed_modules() -> list[str]:
    """Modules in the numbered list of docs/architecture.md, relative to the package."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    chapter = text.split("## One request")[1].split("## ")[0]
    return re.findall(r"^\d+\. `gateway/([a-z_/]+\.py)`", chapter, re.MULTILINE)


def shared_regions(triton_url: str) -> set[str]:
    """Names of the shared memory that Triton has registered."""
    with tritonclient.grpc.InferenceServerClient(triton_url) as client:
        return set(client.get_system_shared_memory_status().regions)


def passed_modules(triton_url: str) -> list[str]:
    """Modules whose functions run for one JPEG that is not in the cache, in order."""
    found: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and is_noting and file.is_relative_to(PACKAGE):
            found[str(file.relative_to(PACKAGE))] = None

    is_noting = False

    async def run() -> None:
        nonlocal is_noting
        settings = Settings(triton_url=triton_url, shared_memory_bytes=2**24)
        before = shared_regions(triton_url)
        async with in_process_gateway(settings) as service:
            first, second = (encode(gradient(width, 300), "JPEG") for width in (301, 302))
            # Reads the contract and starts to register the shared memory.
            assert await service.post("/models/test/vit", first, {}) == 200
            await asyncio.to_thread(wait_until, lambda: bool(shared_regions(triton_url) - before))
            is_noting = True
            assert await service.post("/models/test/vit", second, {}) == 200
            is_noting = False

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        asyncio.run(run())
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
    return list(found)


@pytest.mark.pixels
def test_request_passes_the_modules_that_the_docs_list(stack: Stack) -> None:
    """A request passes exactly the listed modules, each listed once, and at most 15."""
    listed = listed_modules()

    assert sorted(passed_modules(stack.triton_grpc_url)) == sorted(listed)
    assert len(set(listed)) == len(listed)
    assert len(listed) <= MAX_MODULES
