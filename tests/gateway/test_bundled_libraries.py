"""The C libraries inside the wheels that decode pictures are not older than their known faults.

A lower bound is the first release without faults that we know of and that files can reach.
"""

import re
from typing import Final

import pytest
from PIL import _avif, features

from gateway.imaging.images import FORMATS

LEAST: Final = {
    # Lossless JPEGs are no longer written whole into a buffer for a scaled picture.
    "libjpeg_turbo": (3, 1, 4),
    # CVE-2026-4775, in reading TIFF.
    "libtiff": (4, 7, 2),
    # CVE-2023-4863: lossless WebP writes past a table of Huffman codes.
    "webp": (1, 3, 2),
    # CVE-2025-48174: an integer overflow in its streams.
    "avif": (1, 3, 0),
    # CVE-2022-37434: `inflate` reads past an extra field.
    "zlib": (1, 2, 13),
    # TIFF and EXIF: tags that share their bytes fill the memory before.
    "pil": (13, 0),
}
# CVE-2024-1580: dav1d overflows an integer on large frames.
LEAST_DAV1D: Final = (1, 4, 0)


def parsed(version: str | None) -> tuple[int, ...]:
    """The numbers of a version; a library that is not there has none."""
    return tuple(map(int, re.findall(r"\d+", (version or "").partition("-")[0])))


@pytest.mark.parametrize("name", LEAST)
def test_library_is_not_older_than_its_fixes(name: str) -> None:
    """As Pillow says what it was built with."""
    assert parsed(features.version(name)) >= LEAST[name]


def test_av1_decoder_is_not_older_than_its_fixes() -> None:
    """The one that libavif takes for decoding."""
    found = re.search(r"dav1d \[dec\]:([\d.]+)", _avif.codec_versions())

    assert found is not None
    assert parsed(found[1]) >= LEAST_DAV1D


def test_format_of_a_library_with_a_known_fault_is_not_decoded() -> None:
    """OpenJPEG up to 2.5.4 writes past its memory (its issue 1652); no fixed release is there yet.

    Once Pillow brings a fixed one, this fails, and JPEG 2000 may be decided anew.
    """
    assert "JPEG2000" not in FORMATS
    assert parsed(features.version("jpg_2000")) <= (2, 5, 4)
