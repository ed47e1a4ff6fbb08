"""Handwritten digits as ordinary pictures, from the data set inside scikit-learn.

1,797 images of 8×8 grey levels (UCI "Optical Recognition of Handwritten Digits", test half) become
128×128 RGB pictures, ink on paper; a third is held out from training, the same on every machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

_SPLIT_SEED: Final = 0
_SIDE: Final = 128
_MARGIN: Final = 8
_INK_LEVELS: Final = 16
_EDGE: Final = (0.2, 0.6)
_PAPER: Final = np.array([250.0, 247.0, 238.0])
_INK: Final = np.array([24.0, 32.0, 84.0])


@dataclass(frozen=True, slots=True)
class Digit:
    """One digit: its number in the data set, what it shows, and its picture."""

    index: int
    label: int
    picture: Image.Image


def draw(levels: npt.NDArray[Any]) -> Image.Image:
    """Picture of an 8×8 array of ink levels from 0 to 16."""
    ink = Image.fromarray((levels * (255 / _INK_LEVELS)).astype(np.uint8))
    inner = _SIDE - 2 * _MARGIN
    sheet = Image.new("L", (_SIDE, _SIDE), 0)
    sheet.paste(ink.resize((inner, inner), Image.Resampling.BICUBIC), (_MARGIN, _MARGIN))
    # Enlarged sixteen times, the grey levels are a blur; this makes the edges steeper.
    grey = np.asarray(sheet, dtype=np.float64)[..., np.newaxis] / 255
    cover = np.clip((grey - _EDGE[0]) / (_EDGE[1] - _EDGE[0]), 0, 1)
    return Image.fromarray((_PAPER + (_INK - _PAPER) * cover).round().astype(np.uint8))


def load_split() -> tuple[list[Digit], list[Digit]]:
    """The digits for training, and the held-out third that measures accuracy."""
    data = load_digits()
    indices = np.arange(len(data.target))
    training, held_out = train_test_split(
        indices, test_size=1 / 3, random_state=_SPLIT_SEED, stratify=data.target
    )

    def drawn(chosen: npt.NDArray[Any]) -> list[Digit]:
        return [Digit(int(i), int(data.target[i]), draw(data.images[i])) for i in sorted(chosen)]

    return drawn(training), drawn(held_out)


def write_pictures(held_out: list[Digit], folder: Path) -> None:
    """Write the held-out digits as PNG.

    `digits/<label>.png` is the first of each label, for trying things out;
    `held-out/<index>-<label>.png` are all of them.
    """
    for sub in ("digits", "held-out"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for digit in reversed(held_out):
        digit.picture.save(folder / "held-out" / f"{digit.index:04}-{digit.label}.png")
        digit.picture.save(folder / "digits" / f"{digit.label}.png")
