"""Resize and crop an upright image as the contract says; the exporter proves its models with this.

Pure. This is image mode `reference`: Pillow throughout, so bit-equal to transformers' PIL
processors.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from gateway.modelspec import CropRounding, Preprocessing, Resample

Pixels = npt.NDArray[np.uint8]

_FILTERS: Final[dict[Resample, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def fit(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """Pixels of `image`, which is in the colour mode asked for: `(height, width, channels)`."""
    size = resized(image.width, image.height, preprocessing)
    if size is not None:
        image = image.resize(size, _FILTERS[preprocessing.resample])
    crop, rounding = preprocessing.center_crop, preprocessing.center_crop_rounding
    if crop is not None:
        left = _offset(image.width - crop.width, rounding)
        top = _offset(image.height - crop.height, rounding)
        image = image.crop((left, top, left + crop.width, top + crop.height))
    pixels = np.asarray(image)
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def _offset(difference: int, rounding: CropRounding) -> int:
    return difference // 2 if rounding == "floor" else round(difference / 2)


def resized(width: int, height: int, preprocessing: Preprocessing) -> tuple[int, int] | None:
    """Width and height after resizing; none where there is no resizing."""
    if preprocessing.resize is not None:
        return preprocessing.resize.width, preprocessing.resize.height
    edge = preprocessing.shortest_edge
    if edge is None:
        return None
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge
