"""Pictures as the gateway packs them into one call: docs/gpu.md has the layout.

Pure. `gateway.triton.payload` writes what this module reads.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_HEAD: Final = np.dtype("<u4")
_FIELDS: Final = 8


class Fitting(NamedTuple):
    """How a decoded picture becomes the model's input. All zeros for pixels, which are ready."""

    width: int
    """Of the picture as it is stored, in pixels, as the height."""
    height: int
    resized_width: int
    """After resizing, before turning."""
    resized_height: int
    turn: int
    """Which of the steps `TRANSPOSE`, `FLIP_ROWS` and `FLIP_COLUMNS` are done, in this order."""
    left: int
    """First column, of the turned picture, that the model takes."""
    top: int
    """First row."""


TRANSPOSE: Final = 1
FLIP_ROWS: Final = 2
FLIP_COLUMNS: Final = 4


class Picture(NamedTuple):
    """One picture of a call."""

    data: Bytes
    """A JPEG, or the model's input itself."""
    fitting: Fitting

    @property
    def is_jpeg(self) -> bool:
        """Whether it has to be decoded."""
        return self.fitting.width > 0


_EMPTY: Final = Picture(np.zeros(0, np.uint8), Fitting(0, 0, 0, 0, 0, 0, 0))


def unpack(packed: Bytes) -> Iterator[Picture]:
    """The pictures of one call; what does not fit the call's bytes is an empty picture.

    Args:
        packed: Shape `(pictures, bytes)`. The rows are one run of bytes, whose division into rows
            has no meaning.
    """
    count, flat = len(packed), packed.reshape(-1)
    start = count * _FIELDS * _HEAD.itemsize
    if len(flat) < start:
        yield from [_EMPTY] * count
        return
    for size, *fields in flat[:start].view(_HEAD).reshape(count, _FIELDS).tolist():
        end = start + size
        yield Picture(flat[start:end], Fitting(*fields)) if end <= len(flat) else _EMPTY
        start = end
