"""Turn image files into the uint8 pixels that a model takes.

Pure CPU, no I/O. The result has shape `(height, width, channels)`, is upright and contiguous.
In every image mode `formats` and Pillow decide which files are refused, and Pillow reads the EXIF
orientation.
"""

import io
from typing import Final, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from gateway.errors import DAMAGED, InvalidImage
from gateway.imaging.foreign_files import foreign_kind
from gateway.imaging.formats import CheckedFile, check_file, has_image_signature
from gateway.imaging.pixels import (
    FitPlan,
    fit_fast,
    fit_with_pillow,
    plan_fit,
    resized_size,
    shrink_on_decoding,
    upright_size,
)
from gateway.modelspec import Preprocessing
from gateway.settings import DecodeMode
from gateway.tensors import Pixels

# An allow-list: Pillow also opens EPS, PSD, FITS and others that only add attack surface; ICO
# decodes a whole embedded image before its size is known, QOI is decoded in Python. OpenJPEG 2.5.4,
# which Pillow brings for JPEG 2000, has a known write past its memory (docs/decisions/0014).
# MPO files, which some phones write, come in as JPEG.
FORMATS: Final = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG"),
    *("PNG", "PPM", "TIFF", "WEBP"),
)
_ORDINARY_ASPECT_RATIO: Final = 20
_TIFF_TILE_SIZE: Final = (322, 323)


def decode(
    data: bytes, preprocessing: Preprocessing, max_image_pixels: int, mode: DecodeMode
) -> Pixels:
    """Decode, turn upright, convert to the model's colour mode, resize and crop one image.

    Animated images give their first frame; the alpha channel is dropped, not composited.

    Args:
        data: The encoded image.
        preprocessing: The model's size, filter and crop.
        max_image_pixels: Limit on width × height, checked before the pixels are decoded.
        mode: `reference` is bit-equal to transformers' PIL processors; the others are faster.

    Raises:
        InvalidImage: The bytes are not an image, or the image is damaged or over the limit.
    """
    decoded = _decode(check_file(data, max_image_pixels), preprocessing, max_image_pixels, mode)
    if mode == "reference":
        image = decoded.image.convert(preprocessing.color)
        return np.ascontiguousarray(fit_with_pillow(image, decoded.plan, preprocessing))
    return fit_fast(decoded.image, decoded.plan, preprocessing, decoded.orientation)


class _Decoded(NamedTuple):
    image: Image.Image
    """In RGB, also for a model that takes grey: transformers' pipeline converts to RGB first."""
    plan: FitPlan
    """Made for the whole image, upright; `image` may be scaled down."""
    orientation: int
    """How to turn `image`: EXIF's value, 1 to 8."""


def _decode(
    file: CheckedFile, preprocessing: Preprocessing, max_image_pixels: int, mode: DecodeMode
) -> _Decoded:
    """Decode with Pillow. Only mode `reference` returns the image upright."""
    try:
        with Image.open(io.BytesIO(file.data), formats=FORMATS) as image:
            _check_codec(image, max_image_pixels)
            check_size(image.size, preprocessing, max_image_pixels)
            if file.jpeg is not None:
                # Pass the file on at once: an arithmetic decoder cannot pause for more.
                image.decodermaxblock = len(file.data)
            if mode == "reference":
                upright = ImageOps.exif_transpose(image).convert("RGB")
                return _Decoded(upright, plan_fit(*upright.size, preprocessing), 1)
            if file.jpeg is None:
                # A PNG may have its orientation after the pixels.
                image.load()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            plan = plan_fit(*upright_size(image.size, orientation), preprocessing)
            if mode == "scaled" and file.jpeg is not None and file.jpeg.frame.is_scalable:
                shrink_on_decoding(image, plan, orientation)
            image.load()
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            return _Decoded(rgb, plan, orientation)
    except InvalidImage:
        raise
    except Image.DecompressionBombError as exc:
        raise InvalidImage(
            f"Image size exceeds the limit of {max_image_pixels} pixels"
            " (GATEWAY_MAX_IMAGE_PIXELS); send a smaller image"
        ) from exc
    except UnidentifiedImageError as exc:
        raise InvalidImage(_unidentified(file.data)) from exc
    # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error and more for bad files.
    except Exception as exc:
        raise InvalidImage(DAMAGED) from exc


def _unidentified(data: bytes) -> str:
    foreign = foreign_kind(data)
    if foreign is not None:
        return foreign
    if has_image_signature(data):
        return (
            "cannot identify image file: its header is damaged, or its kind of pixels or"
            " compression is not supported; send a JPEG or PNG"
        )
    return "cannot identify image file"


def _check_codec(image: Image.Image, max_image_pixels: int) -> None:
    """Refuse compressions and tiles that cost far more to decode than the image's size suggests."""
    # Pillow decodes these in Python, seconds for a few megabytes.
    if any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", [])):
        raise InvalidImage(
            f"{image.format} in this compression is not supported; send a JPEG or PNG"
        )
    # One tile may be far larger than the image it belongs to, and is decoded whole.
    tags = getattr(image, "tag_v2", {})
    width, length = (tags.get(tag, 1) for tag in _TIFF_TILE_SIZE)
    if width * length > max_image_pixels:
        raise InvalidImage(
            f"A tile of the image ({width}x{length}) exceeds the limit of {max_image_pixels} pixels"
            " (GATEWAY_MAX_IMAGE_PIXELS); send a smaller image"
        )


def check_size(size: tuple[int, int], preprocessing: Preprocessing, max_image_pixels: int) -> None:
    """Refuse an image that is too large as it is, or once its shorter side is enlarged.

    Args:
        size: Width and height.
        preprocessing: The model's.
        max_image_pixels: Limit on width × height.

    Raises:
        InvalidImage: It is over the limit.
    """
    _refuse_above(max_image_pixels, *size, "")
    edge = preprocessing.shortest_edge
    enlarged = resized_size(*size, preprocessing)
    if edge is not None and enlarged is not None:
        # Ordinary shapes pass even if the limit is below the model's own size.
        limit = max(max_image_pixels, _ORDINARY_ASPECT_RATIO * edge * edge)
        _refuse_above(limit, *enlarged, " once resized for the model")


def _refuse_above(limit: int, width: int, height: int, stage: str) -> None:
    if width * height > limit:
        raise InvalidImage(
            f"Image size ({width}x{height}, {width * height} pixels{stage}) exceeds the limit of"
            f" {limit} pixels (GATEWAY_MAX_IMAGE_PIXELS); send a smaller image"
        )
