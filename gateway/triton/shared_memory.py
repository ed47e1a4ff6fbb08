"""Pixels for a Triton on the same host, in memory that both map: nothing of them is sent.

Triton's system shared memory extension. Whatever stands in its way, the pixels go over the wire.
"""

import asyncio
import mmap
import os
from bisect import insort
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from tritonclient.utils import InferenceServerException

from gateway.imaging.pixels import Pixels
from gateway.observability.logs import log
from gateway.runtime.ids import new_id

_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory has its names
_OWNER_ONLY: Final = 0o600
_TIMEOUT_S: Final = 5.0
# Triton may be on its way; any other refusal is its last word.
_PASSING: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
_UNKNOWN_REGION: Final = "Unable to find shared memory region"


class Region:
    """Memory with a name, and which parts of it are lent.

    Raises:
        OSError: There is not so much left.
    """

    def __init__(self, size_bytes: int) -> None:
        self.name = f"vitriton-pixels-{new_id()}"
        self.size_bytes = size_bytes
        self._path = _FOLDER / self.name
        self._lent: list[tuple[int, int]] = []
        file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY)
        try:
            # All of it now: a page that turns out to be missing later would end the process.
            os.posix_fallocate(file, 0, size_bytes)
            self._bytes = np.frombuffer(mmap.mmap(file, size_bytes), np.uint8)
        except OSError:
            self.unlink()
            raise
        finally:
            os.close(file)

    def unlink(self) -> None:
        """Take the name away; the memory lasts as long as somebody has it mapped."""
        self._path.unlink(missing_ok=True)

    def lend(self, size: int) -> int | None:
        """Offset of a part of so many bytes that is nobody else's; none if there is none."""
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

    def write(self, offset: int, pixels: Sequence[Pixels]) -> None:
        """Put images there, one behind the other."""
        for image in pixels:
            self._bytes[offset : offset + image.nbytes] = image.reshape(-1)
            offset += image.nbytes


class Place(NamedTuple):
    """Where the pixels of one call are."""

    region: Region
    offset: int


class SharedPixels:
    """A region that Triton knows of, within one event loop."""

    def __init__(self, client: Any, size_bytes: int) -> None:
        """Share nothing yet.

        Args:
            client: tritonclient's, of the aio kind.
            size_bytes: Memory to share; 0 for none.
        """
        self._client = client
        self._size_bytes = size_bytes
        self._region: Region | None = None
        self._registering: asyncio.Task[None] | None = None

    def put(self, pixels: Sequence[Pixels]) -> Place | None:
        """The images in shared memory; none if they have to be sent.

        Args:
            pixels: Of one shape and contiguous, at least one.
        """
        if self._region is None:
            if self._size_bytes and self._registering is None:
                self._registering = asyncio.create_task(self._register())
            return None
        offset = self._region.lend(pixels[0].nbytes * len(pixels))
        if offset is None:
            return None
        self._region.write(offset, pixels)
        return Place(self._region, offset)

    def is_unknown(self, place: Place, details: str) -> bool:
        """Whether Triton's error says that it has no such region, as it has started anew."""
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
        try:
            await self._client.register_system_shared_memory(
                region.name, f"/{region.name}", region.size_bytes, client_timeout=_TIMEOUT_S
            )
            self._region = region
        except InferenceServerException as exc:
            if not str(exc.status()).endswith(_PASSING):
                self._give_up(exc.message())
        finally:
            # Triton has mapped it by now; without a name nothing is left behind, whoever is killed.
            region.unlink()
            self._registering = None

    def _give_up(self, reason: str) -> None:
        log.warning(
            "Triton does not share memory, pixels are sent (GATEWAY_SHARED_MEMORY_BYTES): %s",
            reason,
        )
        self._size_bytes = 0

    async def aclose(self) -> None:
        """Have Triton let go of the memory, if it can be asked."""
        if self._registering is not None:
            await asyncio.wait({self._registering})
        region, self._region, self._size_bytes = self._region, None, 0
        if region is not None:
            try:
                await self._client.unregister_system_shared_memory(
                    region.name, client_timeout=_TIMEOUT_S
                )
            except InferenceServerException as exc:
                log.info("Triton still has %s mapped: %s", region.name, exc.message())
