"""`decode` does Pillow's steps, turns images upright, and raises only `InvalidImage`."""

import struct
import zlib
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.errors import InvalidImage
from gateway.imaging.formats import has_image_signature
from gateway.imaging.images import FORMATS, decode
from gateway.imaging.pixels import plan_fit
from gateway.modelspec import Preprocessing, Resample, Size
from gateway.settings import DecodeMode
from tests.pictures import encode, gradient, rotated

LIMIT = 1_000_000


def preprocessing(**fields: object) -> Preprocessing:
    return Preprocessing.model_validate(
        {"resize": {"height": 32, "width": 24}, "resample": "bilinear"} | fields
    )


@given(
    st.binary(max_size=200),
    st.sampled_from(["", "png", "jpeg", "gif", "riff", "tiff", "bigtiff", "avif", "pnm"]),
    st.sampled_from(get_args(DecodeMode)),
)
def test_any_bytes_are_pixels_or_invalid(data: bytes, kind: str, mode: DecodeMode) -> None:
    """Any bytes after a valid beginning give pixels or `InvalidImage`, in every mode."""
    beginnings = {
        "": b"",
        "png": encode(gradient(5, 4), "PNG")[:40],
        "jpeg": encode(gradient(5, 4), "JPEG")[:200],
        "gif": b"GIF89a",
        "riff": b"RIFF\x10\x00\x00\x00WEBP",
        "tiff": b"II*\x00",
        "bigtiff": b"MM\x00+\x00\x08\x00\x00",
        "avif": encode(gradient(5, 4), "AVIF")[:200],
        "pnm": b"P6\n",
    }
    try:
        pixels = decode(beginnings[kind] + data, preprocessing(), LIMIT, mode)
    except InvalidImage as exc:
        assert str(exc)
    else:
        assert pixels.shape == (32, 24, 3)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        # 7/8 of the shorter side, 47, is 41; half of it is 23.
        ((61, 47), (19, 3, 42, 44)),
        ((47, 61), (12, 10, 35, 51)),
        ((1, 1), (0, 0, 1, 1)),
        ((1, 90), (0, 44, 1, 45)),
    ],
)
def test_first_crop_is_a_share_of_the_shorter_side(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    """The first crop is cut from the middle, rounded down, and has at least one pixel."""
    picture = gradient(*size)
    steps = preprocessing(first_crop={"height": 7 / 8, "width": 1 / 2})

    pixels = decode(encode(picture, "PNG"), steps, LIMIT, "reference")

    wanted = picture.crop(box).resize((24, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels, np.asarray(wanted))


@pytest.mark.parametrize("resample", get_args(Resample))
def test_resize_is_pillows(resample: Resample) -> None:
    """An image is resized to the exact size by Pillow, with every filter."""
    picture = gradient(61, 47)

    pixels = decode(encode(picture, "PNG"), preprocessing(resample=resample), LIMIT, "reference")

    wanted = picture.resize((24, 32), Image.Resampling[resample.upper()])
    assert np.array_equal(pixels, np.asarray(wanted))
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(orientation: int) -> None:
    """Each of the eight EXIF orientations gives the same upright pixels."""
    pixels = decode(rotated(orientation, "PNG"), preprocessing(resize=None), LIMIT, "reference")

    assert np.array_equal(pixels, np.asarray(gradient(120, 60)))


def test_odd_offset_of_the_centre_crop_is_rounded_down() -> None:
    """An odd offset of the centre crop is rounded down, as in transformers."""
    picture = gradient(41, 40)
    crop = preprocessing(resize=None, center_crop=Size(height=33, width=30))

    pixels = decode(encode(picture, "PNG"), crop, LIMIT, "reference")

    assert np.array_equal(pixels, np.asarray(picture)[3:36, 5:35])


@given(st.integers(1, 90), st.integers(1, 90))
def test_image_resized_by_its_shortest_edge_fills_the_crop(width: int, height: int) -> None:
    """An image of any shape, resized by its shorter side, fills the centre crop."""
    steps = preprocessing(resize=None, shortest_edge=16, center_crop=Size(height=16, width=16))

    assert decode(encode(gradient(width, height), "PNG"), steps, LIMIT, "reference").shape == (
        16,
        16,
        3,
    )


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_allowed_format_is_recognised_and_decoded(fmt: str) -> None:
    """Pillow knows each allowed format, and what it writes is recognised and decoded."""
    Image.init()
    assert fmt in Image.OPEN
    if fmt not in Image.SAVE:
        return
    mode = "RGB"
    data = encode(gradient(32, 32).convert(mode), fmt)

    # A DIB is a BMP without its header, and has no signature.
    assert has_image_signature(data) or fmt == "DIB"
    assert decode(data, preprocessing(), LIMIT, "reference").shape == (32, 24, 3)


def tiled_tiff(tile: int) -> bytes:
    """A TIFF whose header says 16×16, in one far larger tile."""
    entries = [
        (256, 4, 16),  # ImageWidth
        (257, 4, 16),  # ImageLength
        (258, 3, 8),  # BitsPerSample
        (259, 3, 8),  # Compression: deflate
        (262, 3, 1),  # PhotometricInterpretation
        (322, 4, tile),  # TileWidth
        (323, 4, tile),  # TileLength
        (324, 4, 200),  # TileOffsets
    ]
    data = zlib.compress(bytes(tile * tile))
    entries.append((325, 4, len(data)))  # TileByteCounts
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    return (b"II*\x00\x08\x00\x00\x00" + directory).ljust(200, b"\x00") + data


def test_tile_larger_than_the_limit_is_refused() -> None:
    """A TIFF with a tile over the pixel limit is refused, however small its header says it is."""
    with pytest.raises(InvalidImage, match=r"tile.*2000x2000.*limit of 1000000"):
        decode(tiled_tiff(2000), preprocessing(), LIMIT, "reference")
    assert decode(tiled_tiff(16), preprocessing(), LIMIT, "reference").shape == (32, 24, 3)


def test_image_that_is_too_large_once_resized_is_refused() -> None:
    """A narrow image is refused if enlarging its shorter side would exceed the pixel limit."""
    steps = preprocessing(resize=None, shortest_edge=224, center_crop=Size(height=224, width=224))

    with pytest.raises(InvalidImage, match="once resized"):
        decode(encode(gradient(1, 4000), "PNG"), steps, LIMIT, "reference")
    assert decode(encode(gradient(10, 190), "PNG"), steps, 2000, "reference").shape == (224, 224, 3)


def test_formats_decoded_in_python_are_refused() -> None:
    """Formats that Pillow decodes in Python are refused: a small file would take seconds."""
    plain = b"P3 2 2 255\n" + b"1 2 3 " * 4

    with pytest.raises(InvalidImage, match="not supported"):
        decode(plain, preprocessing(), LIMIT, "reference")
    assert "ICO" not in FORMATS
    assert "QOI" not in FORMATS


def test_too_many_pixels_are_refused_with_the_limit() -> None:
    """The error for too many pixels has the size, the limit and the setting's name."""
    with pytest.raises(InvalidImage, match=r"1001x1000.*1000000.*GATEWAY_MAX_IMAGE_PIXELS"):
        decode(encode(gradient(1001, 1000), "PNG"), preprocessing(), LIMIT, "reference")


@pytest.mark.parametrize(
    ("width", "height", "resized"),
    [
        (1124, 721, (698, 448)),
        (721, 1124, (448, 698)),
        (500, 500, (448, 448)),
        (3, 1000, (448, 149333)),
    ],
)
def test_shortest_edge_is_exact_and_the_longer_one_is_rounded_down(
    width: int, height: int, resized: tuple[int, int]
) -> None:
    """The sizes are those of transformers' `get_resize_output_image_size`."""
    steps = preprocessing(resize=None, shortest_edge=448)

    assert plan_fit(width, height, steps).resize == resized
