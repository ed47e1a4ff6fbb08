"""Memory that the gateway shares with a Triton on the same host, so that no pictures are sent.

Uses Triton's system shared memory extension. Pictures are sent whenever sharing is not possible.
"""

import asyncio
import mmap
import os
from bisect import insort
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from gateway.observability.logs import log

_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory has its names
_OWNER_ONLY: Final = 0o600
_TIMEOUT_S: Final = 5.0
# Triton may be starting. Any other refusal is final.
_TRANSIENT: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
_UNKNOWN_REGION: Final = "Unable to find shared memory region"


class Region:
    """Memory with a name, and the parts of it that are lent.

    Raises:
        OSError: There is not so much memory left.
    """

    def __init__(self, size_bytes: int) -> None:
        self.name = f"vitriton-pixels-{uuid4().hex}"
        self.size_bytes = size_bytes
        self._path = _FOLDER / self.name
        self._lent: list[tuple[int, int]] = []
        file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY)
        try:
            # Allocate all pages now: a page that is missing later would end the process.
            os.posix_fallocate(file, 0, size_bytes)
            self._bytes = np.frombuffer(mmap.mmap(file, size_bytes), np.uint8)
        except OSError:
            self.unlink()
            raise
        finally:
            os.close(file)

    def unlink(self) -> None:
        """Remove the name; the memory lasts as long as a process has it mapped."""
        self._path.unlink(missing_ok=True)

    def lend(self, size: int) -> int | None:
        """Offset of a free part of `size` bytes, lent from now on; none if no part is free."""
        start = 0
        for lent, end in self._lent:
            if lent - start >= size:
                break
            start = end
        if start + size > self.size_bytes:
            return None
        insort(self._lent, (start, start + size))
        return start

    def give_back(self, offset: int) -> None:
        """The part that starts there may be lent again."""
        self._lent = [part for part in self._lent if part[0] != offset]

    def write(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write parts to `offset`, one behind the other."""
        for part in parts:
            self._bytes[offset : offset + len(part)] = np.frombuffer(part, np.uint8)
            offset += len(part)


class Place(NamedTuple):
    """Where the pixels of one call are."""

    region: Region
    offset: int


class SharedMemory:
    """A region that Triton has registered, within one event loop."""

    def __init__(self, stub: Any, size_bytes: int) -> None:
        """Register nothing yet.

        Args:
            stub: Triton's gRPC service.
            size_bytes: Memory to share.
        """
        self._stub = stub
        self._size_bytes = size_bytes
        self._region: Region | None = None
        self._registration: asyncio.Task[None] | None = None
        self._is_given_up = False

    def put(self, parts: Sequence[bytes | memoryview], size: int) -> Place | None:
        """Where the parts are in shared memory, in one run; none if they have to be sent.

        The first call starts the registration and returns none.

        Args:
            parts: What to share.
            size: Bytes of all parts, at least 1.
        """
        if self._region is None:
            if self._registration is None and not self._is_given_up:
                self._registration = asyncio.create_task(self._register())
            return None
        offset = self._region.lend(size)
        if offset is None:
            return None
        self._region.write(offset, parts)
        return Place(self._region, offset)

    def is_unknown(self, place: Place, details: str) -> bool:
        """Whether Triton's error says that it does not know the region: it has been restarted."""
        is_unknown = _UNKNOWN_REGION in details
        if is_unknown and self._region is place.region:
            self._region = None
        return is_unknown

    async def _register(self) -> None:
        try:
            region = Region(self._size_bytes)
        except OSError as exc:
            self._give_up(str(exc))
            return
        request = pb.SystemSharedMemoryRegisterRequest(
            name=region.name, key=f"/{region.name}", byte_size=region.size_bytes
        )
        try:
            await self._stub.SystemSharedMemoryRegister(request, timeout=_TIMEOUT_S)
            self._region = region
        except grpc.aio.AioRpcError as exc:
            if exc.code().name not in _TRANSIENT:
                self._give_up(exc.details() or "")
        finally:
            # Triton has mapped it by now. Without a name nothing is left behind after a crash.
            region.unlink()
            self._registration = None

    def _give_up(self, reason: str) -> None:
        log.warning(
            "Triton does not share memory, pictures are sent (GATEWAY_SHARED_MEMORY_BYTES): %s",
            reason,
        )
        self._is_given_up = True

    async def aclose(self) -> None:
        """Have Triton unmap the memory, if Triton answers."""
        if self._registration is not None:
            await asyncio.wait({self._registration})
        region, self._region, self._is_given_up = self._region, None, True
        if region is not None:
            request = pb.SystemSharedMemoryUnregisterRequest(name=region.name)
            try:
                await self._stub.SystemSharedMemoryUnregister(request, timeout=_TIMEOUT_S)
            except grpc.aio.AioRpcError as exc:
                log.info("Triton still has %s mapped: %s", region.name, exc.details())
