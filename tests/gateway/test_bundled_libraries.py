"""The C libraries that decode pictures, inside the wheels, have fixes for their known faults.

A lower bound is the first release in which no fault is known that a file can trigger.
"""

import re
from typing import Final

import pytest
from PIL import _avif, features

from gateway.imaging.images import FORMATS

MIN_VERSIONS: Final = {
    # Older releases write all pixels of a lossless JPEG into the buffer of a scaled picture.
    "libjpeg_turbo": (3, 1, 4),
    # CVE-2026-4775, in reading TIFF.
    "libtiff": (4, 7, 2),
    # CVE-2023-4863: lossless WebP writes past a table of Huffman codes.
    "webp": (1, 3, 2),
    # CVE-2025-48174: an integer overflow in its streams.
    "avif": (1, 3, 0),
    # CVE-2022-37434: `inflate` reads past an extra field.
    "zlib": (1, 2, 13),
    # In older releases, tags of TIFF and EXIF that share their bytes fill the memory.
    "pil": (13, 0),
}
# CVE-2024-1580: dav1d overflows an integer on large frames.
MIN_DAV1D: Final = (1, 4, 0)


def parsed(version: str | None) -> tuple[int, ...]:
    """The numbers of a version; empty for a missing library."""
    return tuple(map(int, re.findall(r"\d+", (version or "").partition("-")[0])))


@pytest.mark.parametrize("name", MIN_VERSIONS)
def test_library_has_the_fixes_of_its_known_faults(name: str) -> None:
    """Pillow's library has at least the version in which its known faults are fixed."""
    assert parsed(features.version(name)) >= MIN_VERSIONS[name]


def test_av1_decoder_has_the_fix_of_its_known_fault() -> None:
    """The AV1 decoder of libavif is a dav1d in which its known fault is fixed."""
    found = re.search(r"dav1d \[dec\]:([\d.]+)", _avif.codec_versions())

    assert found is not None
    assert parsed(found[1]) >= MIN_DAV1D


def test_format_of_a_library_with_a_known_fault_is_not_decoded() -> None:
    """JPEG 2000 is not decoded as long as Pillow's OpenJPEG has a known fault.

    OpenJPEG up to 2.5.4 writes past its memory (its issue 1652). When this test fails because
    Pillow brings a fixed release, decide anew whether to decode JPEG 2000.
    """
    assert "JPEG2000" not in FORMATS
    assert parsed(features.version("jpg_2000")) <= (2, 5, 4)
