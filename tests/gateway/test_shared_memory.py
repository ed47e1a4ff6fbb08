"""A `Region` lends parts of shared memory and leaves no file behind."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.triton.shared_memory import Region

SHM = Path("/dev/shm")
SIZE = 4096
MORE_THAN_ANY_MACHINE_HAS = 2**50


@given(st.lists(st.one_of(st.integers(1, SIZE // 2), st.none()), max_size=40), st.randoms())
def test_lent_parts_never_overlap(sizes: list[int | None], random: Random) -> None:
    """Lent parts never overlap, and a part is refused only if no gap has its size.

    A number of `sizes` lends a part of that size; None gives a part back.
    """
    region = Region(SIZE)
    region.unlink()
    lent: dict[int, int] = {}
    for size in sizes:
        if size is None:
            if lent:
                done = random.choice(sorted(lent))
                region.give_back(done)
                del lent[done]
            continue
        offset = region.lend(size)
        if offset is None:
            edges = [0, *(edge for at in sorted(lent) for edge in (at, at + lent[at])), SIZE]
            assert all(
                end - start < size for start, end in zip(edges[::2], edges[1::2], strict=True)
            )
            continue
        assert offset >= 0
        assert offset + size <= SIZE
        assert all(offset + size <= at or at + lent[at] <= offset for at in lent)
        lent[offset] = size


def test_images_are_written_in_order_at_the_offset() -> None:
    """Images are written one after the other at the offset, where other processes see them."""
    region = Region(SIZE)

    region.write(100, [bytes([7] * 18), memoryview(bytes([9] * 18))])

    seen = (SHM / region.name).read_bytes()
    region.unlink()
    assert seen[100:136] == bytes([7] * 18 + [9] * 18)
    assert seen[:100] == bytes(100)


def test_unlinked_region_leaves_no_name_and_can_still_be_written() -> None:
    """A region without a name can still be written, so no file is left after a crash."""
    region = Region(SIZE)
    region.unlink()

    region.write(0, [bytes(3)])

    assert not (SHM / region.name).exists()


def test_region_larger_than_memory_is_refused() -> None:
    """A region larger than memory is refused when it is made, and leaves no file."""
    before = set(SHM.iterdir())

    with pytest.raises(OSError, match=r"space|large"):
        Region(MORE_THAN_ANY_MACHINE_HAS)

    assert {path for path in SHM.iterdir() if "vitriton-pixels" in path.name} <= before
