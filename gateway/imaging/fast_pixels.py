"""Image modes `fast` and `scaled`: resize with SIMD, and decode large JPEGs to fewer pixels.

Pure. Pillow decodes; the kernels are Pillow's own, computed by fast_image_resize in Pillow's
memory. docs/image-modes.md has the differences, docs/decisions/0005-decoder-and-resizer.md and
0014-pillow-decodes-jpeg.md the choice.
"""

import threading
from typing import Final, Literal

import numpy as np
from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import ExifTags, Image

from gateway.imaging.pixels import Pixels, crop_box, first_crop_box, fit, resized, with_channels
from gateway.modelspec import Preprocessing, Resample

DecodeMode = Literal["reference", "fast", "scaled"]

# Pillow's names of the filters whose kernel the other library has too; its bicubic is Catmull-Rom.
_FILTERS: Final[dict[Resample, FilterType]] = {
    "bilinear": FilterType.bilinear,
    "bicubic": FilterType.catmull_rom,
}
_NEGATIVE_LOBES: Final[frozenset[Resample]] = frozenset({"bicubic"})
_OPTIONS: Final = {
    name: ResizeOptions(resize_alg=ResizeAlg.convolution(kernel), use_alpha=False)
    for name, kernel in _FILTERS.items()
}
# A scaled decode stops at twice the size wanted: what is left to do is a resize of good quality.
_SCALED_MARGIN: Final = 2
# Of the decoder's scales, eighths, these alone: the others shift the chroma of most files.
_DIVISORS: Final = (8, 4, 2)

# Orientations that exchange width and height.
_SWAPPING: Final = frozenset({5, 6, 7, 8})
# A resizer keeps its buffers and is not shared between threads.
_own = threading.local()


def shrink_on_decoding(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Have a JPEG that is not decoded yet decoded to fewer pixels, where that leaves enough.

    Args:
        image: A JPEG whose frame has scales: `gateway.imaging.jpeg_file.JpegFrame.is_scalable`.
        preprocessing: Tells how many pixels are enough.
    """
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    divisor = _divisor(_upright_size(image.size, orientation), preprocessing)
    if divisor > 1:
        # Pillow takes the largest scale that leaves so many.
        image.draft(None, (image.width // divisor, image.height // divisor))


def _upright_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    return stored[::-1] if orientation in _SWAPPING else stored


def _divisor(upright_size: tuple[int, int], preprocessing: Preprocessing) -> int:
    """By how much the edges may shrink in decoding, with enough left for a resize of quality."""
    wanted = resized(*upright_size, preprocessing)
    # Of an image that is cropped first, the crop's edges fall between the pixels of a smaller one.
    if wanted is None or preprocessing.first_crop is not None:
        return 1
    enough = [_SCALED_MARGIN * edge for edge in wanted]
    for divisor in _DIVISORS:
        if all(edge >= divisor * least for edge, least in zip(upright_size, enough, strict=True)):
            return divisor
    return 1


def fast_fit(
    image: Image.Image,
    stored_size: tuple[int, int],
    preprocessing: Preprocessing,
    orientation: int = 1,
) -> Pixels:
    """As `gateway.imaging.pixels.fit`, within the bounds of docs/image-modes.md.

    Args:
        image: In RGB, as stored.
        stored_size: Width and height of the whole image, as stored; `image` may be scaled down.
        preprocessing: The model's colour, size, filter and crop.
        orientation: How to turn `image`, EXIF's 1 to 8; any other value leaves it as it is.
    """
    first = first_crop_box(*_upright_size(stored_size, orientation), preprocessing)
    if first is not None:
        upright = Image.fromarray(_turned(np.asarray(image), orientation))
        cropped = upright.crop(first)
        rest = preprocessing.model_copy(update={"first_crop": None})
        return fast_fit(cropped, cropped.size, rest)
    wanted = resized(*_upright_size(stored_size, orientation), preprocessing)
    if wanted is not None and preprocessing.resample not in _OPTIONS:
        upright = Image.fromarray(_turned(np.asarray(image), orientation))
        return np.ascontiguousarray(fit(upright.convert(preprocessing.color), preprocessing))
    if preprocessing.color != image.mode:
        image = image.convert(preprocessing.color)
    if wanted is not None:
        # Turned afterwards: there is less to turn, and the kernels are symmetric.
        image = _resize(image, _upright_size(wanted, orientation), preprocessing, orientation)
    pixels = _turned(with_channels(np.asarray(image)), orientation)
    box = crop_box(pixels.shape[1], pixels.shape[0], preprocessing)
    if box is not None:
        pixels = pixels[box.top : box.bottom, box.left : box.right]
    return np.ascontiguousarray(pixels)


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """A view of the pixels as they are meant to be seen."""
    if orientation in _SWAPPING:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels


def _resize(
    image: Image.Image, size: tuple[int, int], preprocessing: Preprocessing, orientation: int
) -> Image.Image:
    """Both axes at once where that is exact enough, else in Pillow's order, one after the other.

    Kernels with negative lobes overshoot, and what is cut off after the first pass depends on
    which one it is. Pillow makes rows of the upright picture narrower first, for most sizes.
    """
    options = _OPTIONS[preprocessing.resample]
    if preprocessing.resample in _NEGATIVE_LOBES and orientation not in _SWAPPING:
        image = _resize_at_once(image, (size[0], image.height), options)
    return _resize_at_once(image, size, options)


def _resize_at_once(
    image: Image.Image, size: tuple[int, int], options: ResizeOptions
) -> Image.Image:
    """Resize with SIMD; the library makes columns shorter first."""
    if image.size == size:
        return image
    target = Image.new(image.mode, size)
    _resizer().resize_pil(image, target, options)
    return target


def _resizer() -> Resizer:
    try:
        own: Resizer = _own.resizer
    except AttributeError:
        own = _own.resizer = Resizer()
    return own
