"""Make the pictures that the bench sends from the two photographs inside scikit-learn.

A machine without scikit-learn can have a picture of noise instead.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

SMALL: Final = (500, 375)
LARGE: Final = (4000, 3000)
_QUALITY: Final = 90
_PHOTOS: Final = ("china.jpg", "flower.jpg")
# Pixels between two random values, and the share of the contrast.
_NOISE: Final = ((64, 0.4), (16, 0.25), (4, 0.25), (2, 0.15))


def _photo(name: str) -> Image.Image:
    from sklearn.datasets import load_sample_image  # noqa: PLC0415 - not on every GPU machine

    return Image.fromarray(load_sample_image(name))


def encoded(picture: Image.Image) -> bytes:
    """Encode a JPEG with 4:2:0 subsampling, as cameras and web sites do."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def write_picture(folder: Path, size: tuple[int, int]) -> Path:
    """Write one photograph of that width and height as a JPEG file, unless it exists."""
    path = folder / f"{size[0]}x{size[1]}.jpg"
    if not path.exists():
        path.write_bytes(encoded(_photo(_PHOTOS[0]).resize(size, Image.Resampling.LANCZOS)))
    return path


def write_noise(folder: Path, size: tuple[int, int]) -> Path:
    """Write a picture of noise at several scales; it has about as many bytes as the photograph."""
    path = folder / f"noise-{size[0]}x{size[1]}.jpg"
    random = np.random.default_rng(0)
    pixels = np.full((size[1], size[0], 3), 128.0)
    for scale, contrast in _NOISE:
        small = random.uniform(0, 255, (size[1] // scale + 1, size[0] // scale + 1, 3))
        layer = Image.fromarray(small.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        pixels += contrast * (np.asarray(layer) - 128.0)
    path.write_bytes(encoded(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))))
    return path


def varied(count: int, seed: int = 0) -> Iterator[bytes]:
    """JPEGs of parts of the photographs, in sizes from 200 to 1600 pixels."""
    random = np.random.default_rng(seed)
    photos = [_photo(name) for name in _PHOTOS]
    for n in range(count):
        photo = photos[n % len(photos)]
        width, height = random.integers(100, 400, 2)
        left = int(random.integers(0, photo.width - width))
        top = int(random.integers(0, photo.height - height))
        part = photo.crop((left, top, left + int(width), top + int(height)))
        scale = float(random.uniform(2, 4))
        size = (int(width * scale), int(height * scale))
        yield encoded(part.resize(size, Image.Resampling.LANCZOS))
