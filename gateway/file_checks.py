"""Refuse files that cost far more to decode than their pixels tell, before anything is decoded.

Pure. What is counted, and each limit with its reason, stands in the module of the format;
docs/image-modes.md has what the worst file within the limits costs.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.avif_file import check_avif
from gateway.jpeg_file import JpegFrame, check_jpeg
from gateway.png_file import without_texts
from gateway.small_headers import check_gif, check_pnm, check_tiff

_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_BY_SIGNATURE: Final[dict[tuple[bytes, ...], Callable[[bytes], None]]] = {
    (b"GIF8",): check_gif,
    (b"II", b"MM"): check_tiff,
    (b"P",): check_pnm,
}


class CheckedFile(NamedTuple):
    """A file that may be decoded."""

    data: bytes
    jpeg: JpegFrame | None
    """None for other formats, and where the file is too damaged to have a frame."""


def check_file(data: bytes, max_image_pixels: int) -> CheckedFile:
    """The file to decode, without what a model never sees.

    BMP has nothing to count, and WebP nothing that costs: a million chunks take 0.04 s.

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
    if data[4:8] == b"ftyp":
        check_avif(data)
    for signatures, check in _BY_SIGNATURE.items():
        if data.startswith(signatures):
            check(data)
    return CheckedFile(data, None)
