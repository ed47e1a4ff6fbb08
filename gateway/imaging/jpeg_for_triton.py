"""Choose which JPEGs Triton decodes, for a model that takes files.

Pure. Triton's decoder is nvImageCodec on a GPU's JPEG engines. It gets what these engines decode
within the bounds of image mode `fast`; the gateway decodes everything else. docs/gpu.md has the
list.
"""

import io
from typing import Final

from PIL import ExifTags, Image

from gateway.imaging.formats import check_file
from gateway.imaging.images import FORMATS, check_size, decode
from gateway.imaging.jpeg_file import JpegHead, end_of_picture
from gateway.imaging.pixels import (
    is_resized_fast,
    plan_fit,
    turn_of,
    upright_size,
)
from gateway.modelspec import Preprocessing
from gateway.settings import DecodeMode
from gateway.tensors import TRANSPOSE, JpegFile, Picture

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""A larger file is decoded here: the event loop would copy it for Triton, 3 ms a megabyte."""

_BASELINE: Final = 0xC0
_APP0: Final = 0xE0
_APP14: Final = 0xEE
# Neither changes how Pillow reads a file: JFIF and, once `_is_ycc` has read it, Adobe.
_HARMLESS: Final = frozenset({_APP0, _APP14})
_ADOBE: Final = b"Adobe"
_ADOBE_TRANSFORM_AT: Final = 11
_YCC: Final = 1
# Bytes of a frame header's length and fields before its components, and of one component.
_FRAME_FIELDS: Final = 8
_COMPONENT: Final = 3
# Horizontal and vertical sampling factors of each component, a half byte each: grey, 4:4:4, 4:2:2
# and 4:2:0.
_SAMPLINGS: Final = frozenset({(0x11,), (0x11, 0x11, 0x11), (0x21, 0x11, 0x11), (0x22, 0x11, 0x11)})
# A table of quantisation: precision and number in a half byte each, and 64 values.
_TABLE_BYTES: Final = 65
_WIDE_TABLE: Final = 0x10
_RGB_COMPONENTS: Final = b"RGB"


def jpeg_or_pixels(
    data: bytes, preprocessing: Preprocessing, max_image_pixels: int, mode: DecodeMode
) -> Picture:
    """The file and its steps if Triton can decode it, else its pixels.

    Raises:
        InvalidImage: As `decode` does.
    """
    file = jpeg_for_triton(data, preprocessing, max_image_pixels)
    return decode(data, preprocessing, max_image_pixels, mode) if file is None else file


def jpeg_for_triton(
    data: bytes, preprocessing: Preprocessing, max_image_pixels: int
) -> JpegFile | None:
    """The file and its steps, if Triton can decode it; None if the gateway has to.

    Args:
        data: The encoded image.
        preprocessing: The model's size, filter and crop.
        max_image_pixels: Limit on width × height.

    Raises:
        InvalidImage: The file is a JPEG over the limits, or of a kind that is not decoded.
    """
    if (
        len(data) > MAX_FILE_BYTES
        or preprocessing.first_crop is not None
        or not is_resized_fast(preprocessing.resample)
    ):
        return None
    head = check_file(data, max_image_pixels).jpeg
    if head is None or not _is_for_engines(data, head):
        return None
    # The engines would not notice that a file is truncated.
    end = end_of_picture(data, head)
    orientation = _orientation(data, head)
    if end is None or orientation is None:
        return None
    stored = head.frame.width, head.frame.height
    check_size(stored, preprocessing, max_image_pixels)
    upright = upright_size(stored, orientation)
    plan = plan_fit(*upright, preprocessing)
    resized = upright if plan.resize is None else plan.resize
    turn = turn_of(orientation)
    return JpegFile(
        data=memoryview(data)[:end],
        width=stored[0],
        height=stored[1],
        resized=resized[::-1] if turn & TRANSPOSE else resized,
        turn=turn,
        left=0 if plan.crop is None else plan.crop.left,
        top=0 if plan.crop is None else plan.crop.top,
    )


def _is_for_engines(data: bytes, head: JpegHead) -> bool:
    """Whether it is a baseline JPEG in one scan, in grey or YCbCr of an ordinary sampling."""
    frame = head.frame
    start = head.frame_at + _FRAME_FIELDS
    fields = data[start : start + _COMPONENT * frame.components]
    identifiers, samplings = fields[::_COMPONENT], tuple(fields[1::_COMPONENT])
    return (
        frame.kind == _BASELINE
        and frame.width > 0
        and frame.height > 0
        and samplings in _SAMPLINGS
        and data[head.scan_at + 2 : head.scan_at + 3] == bytes([frame.components])
        and identifiers != _RGB_COMPONENTS
        and all(_has_bytes_alone(data, at) for at in head.quantisation)
        and _is_ycc(data, head)
    )


def _has_bytes_alone(data: bytes, at: int) -> bool:
    """Whether a segment has tables of quantisation with values of one byte, and nothing else."""
    length = int.from_bytes(data[at : at + 2]) - 2
    tables = range(at + 2, at + 2 + length, _TABLE_BYTES)
    return length % _TABLE_BYTES == 0 and all(data[table] < _WIDE_TABLE for table in tables)


def _is_ycc(data: bytes, head: JpegHead) -> bool:
    """Whether no Adobe segment says that the colours are others than YCbCr."""
    for kind, at in head.applications:
        content = data[at + 2 : at + 2 + _ADOBE_TRANSFORM_AT + 1]
        if kind == _APP14 and content[_ADOBE_TRANSFORM_AT:] != bytes([_YCC]):
            return head.frame.components == 1 and content.startswith(_ADOBE)
    return True


def _orientation(data: bytes, head: JpegHead) -> int | None:
    """EXIF's orientation as Pillow reads it; None if Pillow does not open the file."""
    if all(kind in _HARMLESS for kind, _ in head.applications):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            found: int = image.getexif().get(ExifTags.Base.Orientation, 1)
    # As in `images`: Pillow raises any error for a bad file. The decoder will say what is wrong.
    except Exception:
        return None
    return found
