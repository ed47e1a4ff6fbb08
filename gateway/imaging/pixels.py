"""Resize, crop and turn a decoded image into the pixels that a model takes.

Pure. `fit_with_pillow` is image mode `reference`: it uses only Pillow and is bit-equal to
transformers' PIL processors. The exporter verifies its models by `fit`, which calls it. `fit_fast`
serves the modes `fast` and
`scaled`: fast_image_resize computes Pillow's kernels with SIMD in Pillow's memory.
docs/image-modes.md has the differences between the modes. The reasons are in
docs/decisions/0005-decoder-and-resizer.md and 0014-pillow-decodes-jpeg.md.
"""

import threading
from typing import Final, NamedTuple

import numpy as np
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from gateway.modelspec import CropRounding, Preprocessing, Resample, Size
from gateway.tensors import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE, Pixels

_FILTERS: Final[dict[Resample, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# Filters whose kernel fast_image_resize has too. Pillow's bicubic is Catmull-Rom.
_FAST_FILTERS: Final[dict[Resample, FilterType]] = {
    "bilinear": FilterType.bilinear,
    "bicubic": FilterType.catmull_rom,
}
_FAST_OPTIONS: Final = {
    name: ResizeOptions(resize_alg=ResizeAlg.convolution(kernel), use_alpha=False)
    for name, kernel in _FAST_FILTERS.items()
}
_NEGATIVE_LOBES: Final[frozenset[Resample]] = frozenset({"bicubic"})
# A scaled decode keeps at least twice the size that is needed. That is enough for a resize without
# visible loss.
_SCALED_MARGIN: Final = 2
# The decoder can scale by other eighths too, but those shift the chroma of most files.
_DIVISORS: Final = (8, 4, 2)
# EXIF's orientations, and what turns a picture that is stored so upright.
_TURNS: Final = {
    2: FLIP_COLUMNS,
    3: FLIP_ROWS | FLIP_COLUMNS,
    4: FLIP_ROWS,
    5: TRANSPOSE,
    6: TRANSPOSE | FLIP_COLUMNS,
    7: TRANSPOSE | FLIP_ROWS | FLIP_COLUMNS,
    8: TRANSPOSE | FLIP_ROWS,
}
# A resizer keeps buffers and must not be shared between threads.
_thread = threading.local()


class Box(NamedTuple):
    """A rectangle in pixels; `right` and `bottom` are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int


class FitPlan(NamedTuple):
    """The steps for an upright image of one size, in this order. None leaves a step out."""

    first_crop: Box | None
    resize: tuple[int, int] | None
    """Width and height."""
    crop: Box | None


def plan_fit(width: int, height: int, preprocessing: Preprocessing) -> FitPlan:
    """The plan for an upright image of `width` × `height` pixels."""
    first_crop = _first_crop(width, height, preprocessing)
    if first_crop is not None:
        width, height = first_crop.right - first_crop.left, first_crop.bottom - first_crop.top
    resize = resized_size(width, height, preprocessing)
    if resize is not None:
        width, height = resize
    crop = preprocessing.center_crop
    return FitPlan(
        first_crop,
        resize,
        None
        if crop is None
        else _centred_box(width, height, crop, preprocessing.center_crop_rounding),
    )


def _first_crop(width: int, height: int, preprocessing: Preprocessing) -> Box | None:
    shares, shorter = preprocessing.first_crop, min(width, height)
    if shares is None:
        return None
    crop = Size(
        height=max(1, int(shares.height * shorter)), width=max(1, int(shares.width * shorter))
    )
    return _centred_box(width, height, crop, "floor")


def _centred_box(width: int, height: int, crop: Size, rounding: CropRounding) -> Box:
    left = _offset(width - crop.width, rounding)
    top = _offset(height - crop.height, rounding)
    return Box(left, top, left + crop.width, top + crop.height)


def _offset(difference: int, rounding: CropRounding) -> int:
    return difference // 2 if rounding == "floor" else round(difference / 2)


def resized_size(width: int, height: int, preprocessing: Preprocessing) -> tuple[int, int] | None:
    """Width and height of an image after resizing; none where it is not resized."""
    if preprocessing.resize is not None:
        return preprocessing.resize.width, preprocessing.resize.height
    edge = preprocessing.shortest_edge
    if edge is None:
        return None
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge


def fit(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """Fit an upright image, already in the model's colour mode, as image mode `reference` does."""
    plan = plan_fit(image.width, image.height, preprocessing)
    return fit_with_pillow(image, plan, preprocessing)


def fit_with_pillow(image: Image.Image, plan: FitPlan, preprocessing: Preprocessing) -> Pixels:
    """Fit an image as `fit` does, by a plan that is made already."""
    if plan.first_crop is not None:
        image = image.crop(plan.first_crop)
    if plan.resize is not None:
        image = image.resize(plan.resize, _FILTERS[preprocessing.resample])
    if plan.crop is not None:
        image = image.crop(plan.crop)
    return _with_channels(np.asarray(image))


def _with_channels(pixels: Pixels) -> Pixels:
    """Add the axis of channels to grey pixels that lack it."""
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def upright_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of an image once it is turned upright.

    Args:
        stored: Width and height as stored.
        orientation: EXIF's, 1 to 8.
    """
    return stored[::-1] if turn_of(orientation) & TRANSPOSE else stored


def turn_of(orientation: int) -> int:
    """The steps that turn a stored image upright, in the order of their bits; 0 for none.

    Args:
        orientation: EXIF's, 1 to 8; any other value leaves the image as it is.
    """
    return _TURNS.get(orientation, 0)


def is_resized_fast(resample: Resample) -> bool:
    """Whether the modes `fast` and `scaled`, and Triton, have this filter."""
    return resample in _FAST_FILTERS


def shrink_on_decoding(image: Image.Image, plan: FitPlan, orientation: int) -> None:
    """Have Pillow decode a JPEG to fewer pixels, if enough remain for the plan.

    Args:
        image: An open JPEG, not decoded yet, whose frame `is_scalable`.
        plan: For the whole image, upright.
        orientation: EXIF's, 1 to 8.
    """
    divisor = _divisor(upright_size(image.size, orientation), plan)
    if divisor > 1:
        # Pillow takes the smallest scale that keeps at least this size.
        image.draft(None, (image.width // divisor, image.height // divisor))


def _divisor(size: tuple[int, int], plan: FitPlan) -> int:
    """The factor by which decoding may shrink the edges of an upright image of `size`."""
    # The first crop's edges would fall between the pixels of a smaller image.
    if plan.resize is None or plan.first_crop is not None:
        return 1
    minimum = [_SCALED_MARGIN * edge for edge in plan.resize]
    for divisor in _DIVISORS:
        if all(edge >= divisor * low for edge, low in zip(size, minimum, strict=True)):
            return divisor
    return 1


def fit_fast(
    image: Image.Image, plan: FitPlan, preprocessing: Preprocessing, orientation: int
) -> Pixels:
    """Fit an image almost as `fit` does; docs/image-modes.md has the differences.

    Args:
        image: In RGB, as stored; it may be scaled down where the plan has no first crop.
        plan: For the whole image, upright.
        preprocessing: The model's colour and filter.
        orientation: EXIF's, 1 to 8; any other value leaves the image as it is.
    """
    if plan.first_crop is not None:
        image = _upright(image, orientation).crop(plan.first_crop)
        plan, orientation = plan._replace(first_crop=None), 1
    if plan.resize is not None and preprocessing.resample not in _FAST_OPTIONS:
        upright = _upright(image, orientation).convert(preprocessing.color)
        return np.ascontiguousarray(fit_with_pillow(upright, plan, preprocessing))
    if preprocessing.color != image.mode:
        image = image.convert(preprocessing.color)
    if plan.resize is not None:
        # Turn after resizing: fewer pixels are turned, and the kernels are symmetric.
        size = upright_size(plan.resize, orientation)
        image = _resize(image, size, preprocessing.resample, orientation)
    pixels = _turned(_with_channels(np.asarray(image)), orientation)
    if plan.crop is not None:
        box = plan.crop
        pixels = pixels[box.top : box.bottom, box.left : box.right]
    return np.ascontiguousarray(pixels)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return Image.fromarray(_turned(np.asarray(image), orientation))


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """A view of the pixels of a stored image, turned upright."""
    turn = turn_of(orientation)
    if turn & TRANSPOSE:
        pixels = pixels.transpose(1, 0, 2)
    if turn & FLIP_ROWS:
        pixels = pixels[::-1]
    if turn & FLIP_COLUMNS:
        pixels = pixels[:, ::-1]
    return pixels


def _resize(
    image: Image.Image, size: tuple[int, int], resample: Resample, orientation: int
) -> Image.Image:
    """Resize in the order of Pillow's two passes, where the order changes the result.

    Kernels with negative lobes overshoot, and the first pass cuts the overshoot off along its axis.
    Pillow makes the rows of the upright image narrower first, for most sizes. fast_image_resize
    makes the columns shorter first.
    """
    options = _FAST_OPTIONS[resample]
    if resample in _NEGATIVE_LOBES and not turn_of(orientation) & TRANSPOSE:
        image = _resize_both_axes(image, (size[0], image.height), options)
    return _resize_both_axes(image, size, options)


def _resize_both_axes(
    image: Image.Image, size: tuple[int, int], options: ResizeOptions
) -> Image.Image:
    if image.size == size:
        return image
    target = Image.new(image.mode, size)
    _resizer().resize_pil(image, target, options)
    return target


def _resizer() -> Resizer:
    """This thread's resizer."""
    try:
        own: Resizer = _thread.resizer
    except AttributeError:
        own = _thread.resizer = Resizer()
    return own
