"""Refuse files that cost far more to decode than their number of pixels suggests.

Pure. Nothing is decoded. The module of each format has its limits and their reasons;
docs/image-modes.md has the cost of the worst file within the limits.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.imaging.avif_file import check_avif
from gateway.imaging.jpeg_file import JPEG_SIGNATURE, JpegHead, check_jpeg
from gateway.imaging.png_file import check_and_strip_png
from gateway.imaging.small_headers import check_gif, check_pnm, check_tiff

_PNG: Final = b"\x89PNG\r\n\x1a\n"


class _Format(NamedTuple):
    signature: re.Pattern[bytes]
    check: Callable[[bytes], None] | None = None


# The signatures are those that Pillow looks for. BMP has nothing to count. WebP needs no limit: a
# million chunks take 0.04 s. A DIB has no signature. A file with `ftyp` may be HEIC or a video too.
_OTHER_FORMATS: Final = (
    _Format(re.compile(rb"BM")),
    _Format(re.compile(rb"RIFF....WEBP", re.DOTALL)),
    _Format(re.compile(rb"GIF8[79]a"), check_gif),
    _Format(re.compile(rb"II(?:[*+]\0|\0\*)|MM(?:\0[*+]|\*\0)"), check_tiff),
    # Pillow's own kinds, which have six letters, need no white space.
    _Format(re.compile(rb"P(?:[1-6fF]|yP)\s|P0CMYK|Py(?:RGBA|CMYK)"), check_pnm),
    _Format(re.compile(rb"....ftyp", re.DOTALL), check_avif),
)


class CheckedFile(NamedTuple):
    """A file that may be decoded."""

    data: bytes
    jpeg: JpegHead | None
    """None for other formats, and for a JPEG that is too damaged to have a frame."""


def has_image_signature(data: bytes) -> bool:
    """Whether the first bytes are those of a format the gateway decodes."""
    return data.startswith((JPEG_SIGNATURE, _PNG)) or any(
        other.signature.match(data) for other in _OTHER_FORMATS
    )


def check_file(data: bytes, max_image_pixels: int) -> CheckedFile:
    """Check a file, and leave out parts that change no pixel.

    Args:
        data: Any bytes.
        max_image_pixels: Pixels of the largest image that is decoded.

    Raises:
        InvalidImage: The file has more parts than encoders write, or a kind that is not decoded.
    """
    if data.startswith(JPEG_SIGNATURE):
        return CheckedFile(data, check_jpeg(data, max_image_pixels))
    if data.startswith(_PNG):
        return CheckedFile(check_and_strip_png(data), None)
    for other in _OTHER_FORMATS:
        if other.check is not None and other.signature.match(data):
            other.check(data)
    return CheckedFile(data, None)
