"""The bytes of a call's pictures, as Triton gets them: docs/gpu.md has the layout of files.

Pure. Our Triton backend reads what this module writes.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.modelspec import FILES_INPUT_NAME, INPUT_NAME
from gateway.tensors import JpegFile, Picture
from gateway.triton.client import LoadedModel

# Size of a picture in bytes, then the steps of its `JpegFile`; no steps for pixels.
_HEAD: Final = struct.Struct("<8I")


class Payload(NamedTuple):
    """The input tensor of one call."""

    name: str
    shape: tuple[int, ...]
    parts: Sequence[bytes | memoryview]
    """Its content, one part behind the other."""
    size: int
    """Bytes of all parts."""


def payload(model: LoadedModel, pictures: Sequence[Picture]) -> Payload:
    """The input tensor for some pictures.

    Args:
        model: Takes them.
        pictures: At least one. Pixels are contiguous and of the model's input size; a model that
            takes no files gets only pixels.
    """
    parts = [
        picture.data if isinstance(picture, JpegFile) else picture.data.cast("B")
        for picture in pictures
    ]
    count, size = len(pictures), sum(map(len, parts))
    first = pictures[0]
    if not model.takes_files and not isinstance(first, JpegFile):
        return Payload(INPUT_NAME, (count, *first.shape), parts, size)
    head = b"".join(map(_head, pictures, map(len, parts)))
    # Triton wants rows of one length. All rows together are one run of bytes, which need not end
    # with the last row.
    row = -(-(len(head) + size) // count)
    padding = bytes(row * count - len(head) - size)
    return Payload(FILES_INPUT_NAME, (count, row), [head, *parts, padding], row * count)


def _head(picture: Picture, size: int) -> bytes:
    if not isinstance(picture, JpegFile):
        return _HEAD.pack(size, 0, 0, 0, 0, 0, 0, 0)
    steps = picture.width, picture.height, *picture.resized, picture.turn
    return _HEAD.pack(size, *steps, picture.left, picture.top)
