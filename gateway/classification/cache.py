"""Logits of images seen before, in memory. The least recently used are dropped first."""

from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from blake3 import blake3
from cachetools import TTLCache

from gateway.tensors import Logits

# Bytes of an entry beside its logits: key, array head, links. Measured with tracemalloc.
_ENTRY_OVERHEAD_BYTES: Final = 500


class CacheKey(NamedTuple):
    """The model and the image: equal keys have equal logits."""

    contract_sha256: str
    """Hash of the model's contract, which names weights, preprocessing and labels."""
    image_blake3: bytes
    """Hash of the encoded image, so that raw and base64 bodies share an entry."""


def cache_key(contract_sha256: str, image: bytes) -> CacheKey:
    """Key of an encoded image under a model; the same in every process."""
    return CacheKey(contract_sha256, blake3(image).digest())


class LogitsCache:
    """Bounded in bytes and in age. Within one event loop."""

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._entries: TTLCache[CacheKey, Logits] = TTLCache(max_bytes, ttl_s, clock, _cost_bytes)

    @property
    def size_bytes(self) -> int:
        """What the entries take, overhead included."""
        return int(self._entries.currsize)

    def get(self, key: CacheKey) -> Logits | None:
        """The logits, if they are in the cache and not too old."""
        return self._entries.get(key)

    def put(self, key: CacheKey, logits: Logits) -> None:
        """Keep logits instead of earlier ones, unless they alone are larger than the cache."""
        self._entries.pop(key, None)
        if _cost_bytes(logits) <= self._entries.maxsize:
            self._entries[key] = logits


def _cost_bytes(logits: Logits) -> int:
    return logits.nbytes + _ENTRY_OVERHEAD_BYTES
