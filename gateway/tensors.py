"""The arrays and files that cross from package to package."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""One image, shape `(height, width, channels)`."""

Logits = npt.NDArray[np.float32]
"""A model's output, shape `(n, num_labels)`, or `(num_labels,)` for one image."""

TRANSPOSE: Final = 1
FLIP_ROWS: Final = 2
FLIP_COLUMNS: Final = 4


class JpegFile(NamedTuple):
    """A JPEG that Triton decodes, and the steps that make it the model's input, in this order."""

    data: memoryview
    """The file up to the end of its picture."""
    width: int
    """Of the picture as it is stored, in pixels, as the height."""
    height: int
    resized: tuple[int, int]
    """Width and height after resizing, before turning."""
    turn: int
    """Which of `TRANSPOSE`, `FLIP_ROWS` and `FLIP_COLUMNS` turn it upright, in this order."""
    left: int
    """First column, of the upright picture, that the model takes."""
    top: int
    """First row."""


Picture = Pixels | JpegFile
"""One image on its way to Triton."""
