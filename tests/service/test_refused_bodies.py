"""A refused request does not keep its body in memory."""

import asyncio
import base64
import gc
import gzip
import json

import psutil
import pytest

from gateway.settings import Settings
from tests.asgi import in_process_gateway
from tests.garbage import unreachable_objects
from tests.gateways import gateway
from tests.pictures import PICTURES, photo
from tests.stack import Stack

MODEL = "/models/test/vit"
BODY_BYTES = 9_000_000
LIMIT = {"GATEWAY_MAX_BODY_BYTES": str(BODY_BYTES + 1_000_000)}
# An idle gateway keeps the memory that malloc keeps, up to some bodies.
MAX_GROWTH_BYTES = 120_000_000
REQUESTS_OF_EACH_KIND = 12

FILLING = bytes(BODY_BYTES)
NO_IMAGE = base64.b64encode(bytes(BODY_BYTES * 3 // 4)).decode()
COMMENT = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
HALF_A_PHOTO = b"\xff\xd8" + COMMENT * (BODY_BYTES // len(COMMENT)) + photo("china")[2:50_000]
FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\ncontent-disposition: form-data; name="x"; filename="x"\r\n\r\n'

# Body, headers and path of requests that are refused, by what is wrong. Each stage refuses some.
REFUSED: dict[str, tuple[bytes, dict[str, str], str]] = {
    "no image": (FILLING, {}, MODEL),
    "half a JPEG": (HALF_A_PHOTO, {}, MODEL),
    "damaged PNG": (PICTURES["png larger"][:5000] + FILLING, {}, MODEL),
    "no JSON": (b"{" + FILLING, {}, MODEL),
    "base64 of no image": (json.dumps({"inputs": NO_IMAGE}).encode(), {}, MODEL),
    "list of no images": (
        json.dumps({"inputs": [NO_IMAGE[:-4], NO_IMAGE[:400]]}).encode(),
        {},
        MODEL,
    ),
    "wrong parameter": (
        json.dumps({"inputs": NO_IMAGE, "parameters": {"k": 1}}).encode(),
        {},
        MODEL,
    ),
    "form without an end": (PART + FILLING, FORM, MODEL),
    "form of no image": (PART + FILLING + b"\r\n--b--\r\n", FORM, MODEL),
    "damaged gzip": (gzip.compress(b"x") + FILLING, {"content-encoding": "gzip"}, MODEL),
    "unknown encoding": (FILLING, {"content-encoding": "compress"}, MODEL),
    "form-encoded": (FILLING, {"content-type": "application/x-www-form-urlencoded"}, MODEL),
    "unknown model": (FILLING, {}, "/models/nobody/nothing"),
    "model that cannot be loaded": (PICTURES["bmp"] + FILLING, {}, "/models/test/broken"),
    "model that fails": (PICTURES["bmp"] + FILLING, {}, "/models/test/nan"),
    "too large": (FILLING + FILLING, {}, MODEL),
}


def holders_of_a_body(objects: list[object]) -> list[str]:
    """Descriptions of the objects that refer to a body, or to a large part of one."""
    return [
        f"{type(found).__name__} {str(found)[:200]}"
        for found in objects
        for referent in gc.get_referents(found)
        if isinstance(referent, bytes | bytearray | str) and len(referent) > BODY_BYTES // 4
    ]


@pytest.mark.parametrize("kind", REFUSED)
def test_no_reference_cycle_holds_a_refused_body(stack: Stack, kind: str) -> None:
    """No reference cycle holds a refused body until the collector runs."""
    body, headers, path = REFUSED[kind]

    async def run() -> tuple[int, list[str]]:
        settings = Settings(triton_url=stack.triton_grpc_url, max_body_bytes=BODY_BYTES + 1_000_000)
        async with in_process_gateway(settings) as service:
            await service.post(path, body, headers)
            with unreachable_objects() as found:
                status = await service.post(path, body, headers)
            return status, holders_of_a_body(found)

    status, held = asyncio.run(run())

    assert status >= 400
    assert held == []


def test_memory_does_not_grow_with_refused_bodies(stack: Stack) -> None:
    """After many refused bodies of each kind, the worker's memory has hardly grown."""
    with gateway(stack.triton_grpc_url, **LIMIT) as client:
        (worker,) = [
            child
            for child in psutil.Process(client.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert client.post(MODEL, content=photo("china")).status_code == 200
        before = worker.memory_info().rss
        for body, headers, path in REFUSED.values():
            for _ in range(REQUESTS_OF_EACH_KIND):
                assert client.post(path, content=body, headers=headers).status_code >= 400
        growth = worker.memory_info().rss - before

    assert growth < MAX_GROWTH_BYTES
