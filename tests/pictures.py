"""Encoded pictures: scikit-learn's photographs, and generated pictures in every mode."""

import io
from importlib.resources import files
from typing import Any, Final

import numpy as np
from PIL import Image

ORIENTATION_TAG: Final = 0x0112


def photo(name: str) -> bytes:
    """A 640×427 JPEG photograph: `china` or `flower`."""
    return files("sklearn.datasets.images").joinpath(f"{name}.jpg").read_bytes()


def gradient(width: int, height: int) -> Image.Image:
    """A colourful RGB picture without symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x * y) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encode(image: Image.Image, fmt: str, **options: Any) -> bytes:
    """The picture in a file format."""
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def in_mode(mode: str, fmt: str) -> bytes:
    """A picture in one of Pillow's modes."""
    image = gradient(90, 70)
    if mode == "I;16":
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        return encode(Image.fromarray(deep), fmt)
    if mode in {"RGBA", "LA"}:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encode(image.convert(mode), fmt)


_TRANSPOSE_TO_STORE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def rotated(orientation: int, fmt: str = "JPEG") -> bytes:
    """`gradient(120, 60)`, stored turned, with the EXIF orientation that turns it upright."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    picture = gradient(120, 60)
    if orientation in _TRANSPOSE_TO_STORE:
        picture = picture.transpose(_TRANSPOSE_TO_STORE[orientation])
    return encode(picture, fmt, exif=exif)


PICTURES: Final[dict[str, bytes]] = {
    "photo china": photo("china"),
    "photo flower": photo("flower"),
    "png larger": encode(gradient(500, 375), "PNG"),
    "png smaller": encode(gradient(40, 31), "PNG"),
    "png narrow": encode(gradient(3, 400), "PNG"),
    "png one pixel": encode(gradient(1, 1), "PNG"),
    "png exact size": encode(gradient(224, 224), "PNG"),
    "webp": encode(gradient(160, 90), "WEBP", lossless=True),
    "gif": encode(gradient(64, 48).quantize(32), "GIF"),
    "bmp": encode(gradient(33, 77), "BMP"),
    "tiff": encode(gradient(100, 100), "TIFF"),
    "mode RGBA": in_mode("RGBA", "PNG"),
    "mode LA": in_mode("LA", "PNG"),
    "mode L": in_mode("L", "PNG"),
    "mode P": in_mode("P", "PNG"),
    "mode 1": in_mode("1", "PNG"),
    "mode I;16": in_mode("I;16", "PNG"),
    "mode CMYK": in_mode("CMYK", "JPEG"),
    "exif 6": rotated(6),
}
