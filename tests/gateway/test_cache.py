"""The cache keeps its limits of size and age; the test sets the clock."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.classification.cache import CacheKey, LogitsCache, cache_key
from gateway.tensors import Logits


def logits(size: int) -> Logits:
    return np.arange(size, dtype=np.float32)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 800))),
    st.integers(0, 20_000),
)
def test_cache_never_exceeds_its_size(puts: list[tuple[int, int]], max_bytes: int) -> None:
    """After any puts, the cache is within its limit and has the last entry if that fits."""
    cache = LogitsCache(max_bytes, ttl_s=60)
    for name, size in puts:
        key = CacheKey("model", bytes([name]))
        cache.put(key, logits(size))
        assert 0 <= cache.size_bytes <= max_bytes
        kept = cache.get(key)
        assert kept is None or kept.size == size
        assert (kept is not None) == (4 * size + 500 <= max_bytes)


def test_full_cache_drops_the_least_recently_used_entry() -> None:
    """A full cache drops the entry that was read or written longest ago."""
    cache = LogitsCache(2 * (40 + 500), ttl_s=60)
    a, b, c = (cache_key("model", name) for name in (b"a", b"b", b"c"))
    cache.put(a, logits(10))
    cache.put(b, logits(10))
    cache.get(a)
    cache.put(c, logits(10))

    assert cache.get(b) is None
    assert cache.get(a) is not None
    assert cache.get(c) is not None


def test_old_entry_is_dropped() -> None:
    """An entry as old as its time to live is dropped, and its bytes are no longer counted."""
    now = 0.0
    cache = LogitsCache(10_000, ttl_s=60, clock=lambda: now)
    key = cache_key("model", b"image")
    cache.put(key, logits(10))
    now = 59.9
    assert cache.get(key) is not None
    now = 60
    assert cache.get(key) is None
    assert cache.size_bytes == 0


def test_models_and_images_do_not_share_entries() -> None:
    """Different models have different keys for one image, and so have different images."""
    assert len({cache_key(m, i) for m in ("one", "two") for i in (b"one", b"two")}) == 4
