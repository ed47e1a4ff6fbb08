"""Resize and crop an upright image as the contract says; the exporter proves its models with this.

Pure. `fit` is image mode `reference`: Pillow throughout, so bit-equal to transformers' PIL
processors. What the other modes must do alike, sizes and the place of the crop, is here too.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from gateway.modelspec import CropRounding, Preprocessing, Resample, Size

Pixels = npt.NDArray[np.uint8]

_FILTERS: Final[dict[Resample, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


class Box(NamedTuple):
    """A rectangle in pixels; `right` and `bottom` are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int


def fit(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """Pixels of `image`, which is in the colour mode asked for: `(height, width, channels)`."""
    first = first_crop_box(image.width, image.height, preprocessing)
    if first is not None:
        image = image.crop(first)
    size = resized(image.width, image.height, preprocessing)
    if size is not None:
        image = image.resize(size, _FILTERS[preprocessing.resample])
    box = crop_box(image.width, image.height, preprocessing)
    if box is not None:
        image = image.crop(box)
    return with_channels(np.asarray(image))


def with_channels(pixels: Pixels) -> Pixels:
    """The same pixels with an axis of channels, which grey ones may lack."""
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def first_crop_box(width: int, height: int, preprocessing: Preprocessing) -> Box | None:
    """What is cut out of an upright image before it is resized; none where it is taken whole."""
    shares, shorter = preprocessing.first_crop, min(width, height)
    if shares is None:
        return None
    crop = Size(
        height=max(1, int(shares.height * shorter)), width=max(1, int(shares.width * shorter))
    )
    return _middle(width, height, crop, "floor")


def crop_box(width: int, height: int, preprocessing: Preprocessing) -> Box | None:
    """What is cut out of a resized image; none where it is taken whole."""
    crop = preprocessing.center_crop
    if crop is None:
        return None
    return _middle(width, height, crop, preprocessing.center_crop_rounding)


def _middle(width: int, height: int, crop: Size, rounding: CropRounding) -> Box:
    left = _offset(width - crop.width, rounding)
    top = _offset(height - crop.height, rounding)
    return Box(left, top, left + crop.width, top + crop.height)


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
