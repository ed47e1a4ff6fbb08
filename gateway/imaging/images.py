"""Turn image bytes into the uint8 pixels that a model takes.

Pure CPU, no I/O. The result has shape `(height, width, channels)`, is upright and contiguous.
In every image mode, `file_checks` and Pillow decide what is refused, and EXIF as Pillow reads it
turns the picture.
"""

import io
from typing import Final, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from gateway.errors import DAMAGED, InvalidImage
from gateway.imaging.fast_pixels import DecodeMode, fast_fit, shrink_on_decoding
from gateway.imaging.foreign_files import foreign_kind
from gateway.imaging.formats import CheckedFile, check_file, has_image_signature
from gateway.imaging.pixels import Pixels, fit, resized
from gateway.modelspec import Preprocessing

__all__ = ["FORMATS", "decode", "has_image_signature"]

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
        InvalidImage: The bytes are no image, a damaged one, or one past the limit.
    """
    decoded = _decode(check_file(data, max_image_pixels), preprocessing, max_image_pixels, mode)
    if mode == "reference":
        image = decoded.image.convert(preprocessing.color)
        return np.ascontiguousarray(fit(image, preprocessing))
    return fast_fit(decoded.image, decoded.stored_size, preprocessing, decoded.orientation)


class _Decoded(NamedTuple):
    image: Image.Image
    """In RGB, by way of which transformers' pipeline goes also where it takes grey."""
    stored_size: tuple[int, int]
    """Width and height of the whole image, as stored; `image` may be scaled down."""
    orientation: int
    """How to turn `image`, EXIF's 1 to 8."""


def _decode(
    file: CheckedFile, preprocessing: Preprocessing, max_image_pixels: int, mode: DecodeMode
) -> _Decoded:
    """Decode with Pillow, and turn the image in mode `reference` alone."""
    try:
        with Image.open(io.BytesIO(file.data), formats=FORMATS) as image:
            _check_codec(image, max_image_pixels)
            size = image.size
            _check_size(size, preprocessing, max_image_pixels)
            if file.jpeg is not None:
                # All at once: an arithmetic decoder cannot wait for more.
                image.decodermaxblock = len(file.data)
            if mode == "reference":
                return _Decoded(ImageOps.exif_transpose(image).convert("RGB"), size, 1)
            if mode == "scaled" and file.jpeg is not None and file.jpeg.is_scalable:
                shrink_on_decoding(image, preprocessing)
            image.load()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            return _Decoded(rgb, size, orientation)
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
    """Refuse what would cost far more than the image's size tells."""
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


def _check_size(size: tuple[int, int], preprocessing: Preprocessing, max_image_pixels: int) -> None:
    """Refuse an image that is too large as it is, or once its shorter side is enlarged."""
    _refuse_above(max_image_pixels, *size, "")
    edge = preprocessing.shortest_edge
    enlarged = resized(*size, preprocessing)
    if edge is not None and enlarged is not None:
        # A limit below the model's own size is still no reason to refuse ordinary shapes.
        limit = max(max_image_pixels, _ORDINARY_ASPECT_RATIO * edge * edge)
        _refuse_above(limit, *enlarged, " once resized for the model")


def _refuse_above(limit: int, width: int, height: int, when: str) -> None:
    if width * height > limit:
        raise InvalidImage(
            f"Image size ({width}x{height}, {width * height} pixels{when}) exceeds the limit of"
            f" {limit} pixels (GATEWAY_MAX_IMAGE_PIXELS); send a smaller image"
        )
