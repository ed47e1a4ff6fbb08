"""Make the pictures that the bench sends from the two photographs inside scikit-learn."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

SMALL: Final = (500, 375)
LARGE: Final = (4000, 3000)
_QUALITY: Final = 90
_PHOTOS: Final = ("china.jpg", "flower.jpg")


def _photo(name: str) -> Image.Image:
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
