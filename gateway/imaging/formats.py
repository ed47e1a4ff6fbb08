"""Refuse files that cost far more to decode than their pixels tell, before anything is decoded.

Pure. What is counted, and each limit with its reason, stands in the module of the format;
docs/image-modes.md has what the worst file within the limits costs.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.imaging.avif_file import check_avif
from gateway.imaging.jpeg_file import JpegFrame, check_jpeg
from gateway.imaging.png_file import without_texts
from gateway.imaging.small_headers import check_gif, check_pnm, check_tiff

_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"


class _Format(NamedTuple):
    signature: re.Pattern[bytes]
    check: Callable[[bytes], None] | None = None


# As Pillow tells them. BMP has nothing to count, and WebP nothing that costs: a million chunks take
# 0.04 s. A DIB has no signature. What has the boxes of AVIF may be HEIC or a video as well.
_OTHERS: Final = (
    _Format(re.compile(rb"BM")),
    _Format(re.compile(rb"RIFF....WEBP", re.DOTALL)),
    _Format(re.compile(rb"GIF8[79]a"), check_gif),
    _Format(re.compile(rb"II(?:[*+]\0|\0\*)|MM(?:\0[*+]|\*\0)"), check_tiff),
    # Pillow's own kinds of six letters need no white space.
    _Format(re.compile(rb"P(?:[1-6fF]|yP)\s|P0CMYK|Py(?:RGBA|CMYK)"), check_pnm),
    _Format(re.compile(rb"....ftyp", re.DOTALL), check_avif),
)


class CheckedFile(NamedTuple):
    """A file that may be decoded."""

    data: bytes
    jpeg: JpegFrame | None
    """None for other formats, and where the file is too damaged to have a frame."""


def has_image_signature(data: bytes) -> bool:
    """Whether the first bytes are those of a format the gateway decodes."""
    return data.startswith((_JPEG, _PNG)) or any(each.signature.match(data) for each in _OTHERS)


def check_file(data: bytes, max_image_pixels: int) -> CheckedFile:
    """The file to decode, without what a model never sees.

    Args:
        data: Any bytes.
        max_image_pixels: Pixels of the largest image that is decoded.

    Raises:
        InvalidImage: It has more parts than any honest file, or is of a kind that is not decoded.
    """
    if data.startswith(_JPEG):
        return CheckedFile(data, check_jpeg(data, max_image_pixels))
    if data.startswith(_PNG):
        return CheckedFile(without_texts(data), None)
    for each in _OTHERS:
        if each.check is not None and each.signature.match(data):
            each.check(data)
    return CheckedFile(data, None)
