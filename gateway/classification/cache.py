"""Logits of images seen before, in memory: least recently used out first."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.classification.postprocess import Logits

# Bytes of an entry beside its logits: key, array head, links. Measured with tracemalloc.
_ENTRY_OVERHEAD: Final = 500
# GMAC (NIST SP 800-38D) under a key that nobody knows, as a hash: whoever does not see its tags can
# make two images of n bytes share one by chance alone, at most n/16 in 2^128. So the tags must
# never leave the process; it is also what allows one nonce for all.
_GMAC: Final = AESGCM(AESGCM.generate_key(128))
_NONCE: Final = bytes(12)


class CacheKey(NamedTuple):
    """What decides an image's logits."""

    contract_sha256: str
    """Of the model: weights, preprocessing and labels."""
    image_tag: bytes
    """Of the encoded image, so that raw and base64 bodies share an entry."""


def cache_key(contract_sha256: str, image: bytes) -> CacheKey:
    """Key of an encoded image under a model; another one in every process."""
    return CacheKey(contract_sha256, _GMAC.encrypt(_NONCE, b"", image))


class LogitsCache:
    """Bounded in bytes and in age. Within one event loop."""

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[CacheKey, tuple[float, Logits]] = OrderedDict()
        self._size = 0

    @property
    def size_bytes(self) -> int:
        """What the entries take, overhead included."""
        return self._size

    def get(self, key: CacheKey) -> Logits | None:
        """The logits, if they are there and not too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        stored_at, logits = entry
        if self._clock() - stored_at >= self._ttl_s:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return logits

    def put(self, key: CacheKey, logits: Logits) -> None:
        """Keep logits; others go until all fit. One too large for the cache is not kept."""
        if key in self._entries:
            self._remove(key)
        cost = _cost(logits)
        if cost > self._max_bytes:
            return
        while self._size + cost > self._max_bytes:
            self._remove(next(iter(self._entries)))
        self._entries[key] = (self._clock(), logits)
        self._size += cost

    def _remove(self, key: CacheKey) -> None:
        _, logits = self._entries.pop(key)
        self._size -= _cost(logits)


def _cost(logits: Logits) -> int:
    return logits.nbytes + _ENTRY_OVERHEAD
