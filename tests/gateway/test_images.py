"""Decoding: equal to Pillow's own steps, upright, and never another error than ours."""

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
    """Whatever comes after a valid beginning, nothing but `InvalidImage` is raised."""
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
def test_shares_of_the_shorter_side_are_cut_out_before_resizing(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    """From the middle, rounded down, and one pixel at least."""
    picture = gradient(*size)
    steps = preprocessing(first_crop={"height": 7 / 8, "width": 1 / 2})

    pixels = decode(encode(picture, "PNG"), steps, LIMIT, "reference")

    wanted = picture.crop(box).resize((24, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels, np.asarray(wanted))


@pytest.mark.parametrize("resample", get_args(Resample))
def test_resize_is_pillows(resample: Resample) -> None:
    """Exact size, aspect ratio not kept, every filter."""
    picture = gradient(61, 47)

    pixels = decode(encode(picture, "PNG"), preprocessing(resample=resample), LIMIT, "reference")

    wanted = picture.resize((24, 32), Image.Resampling[resample.upper()])
    assert np.array_equal(pixels, np.asarray(wanted))
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(orientation: int) -> None:
    """All eight, stored as a camera that was held so stores them, in a format without loss."""
    pixels = decode(rotated(orientation, "PNG"), preprocessing(resize=None), LIMIT, "reference")

    assert np.array_equal(pixels, np.asarray(gradient(120, 60)))


def test_odd_centre_crop_is_the_references() -> None:
    """The offset is rounded down."""
    picture = gradient(41, 40)
    crop = preprocessing(resize=None, center_crop=Size(height=33, width=30))

    pixels = decode(encode(picture, "PNG"), crop, LIMIT, "reference")

    assert np.array_equal(pixels, np.asarray(picture)[3:36, 5:35])


@given(st.integers(1, 90), st.integers(1, 90))
def test_shortest_edge_keeps_the_aspect_ratio(width: int, height: int) -> None:
    """The shorter side has the length asked for, the crop its size, whatever the picture."""
    steps = preprocessing(resize=None, shortest_edge=16, center_crop=Size(height=16, width=16))

    assert decode(encode(gradient(width, height), "PNG"), steps, LIMIT, "reference").shape == (
        16,
        16,
        3,
    )


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_allowed_format_is_one_pillow_knows_and_has_a_signature(fmt: str) -> None:
    """What Pillow writes in it is recognised by its first bytes, and decoded."""
    Image.init()
    assert fmt in Image.OPEN
    if fmt not in Image.SAVE:
        return
    mode = "RGB"
    data = encode(gradient(32, 32).convert(mode), fmt)

    # A DIB is a BMP without its header: only Pillow tells it from other bytes.
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
    """What is decoded counts, not what the header calls the image."""
    with pytest.raises(InvalidImage, match=r"tile.*2000x2000.*limit of 1000000"):
        decode(tiled_tiff(2000), preprocessing(), LIMIT, "reference")
    assert decode(tiled_tiff(16), preprocessing(), LIMIT, "reference").shape == (32, 24, 3)


def test_image_that_explodes_when_its_shorter_side_is_enlarged_is_refused() -> None:
    """One pixel wide and long: small as a file, small as an image, huge once resized."""
    steps = preprocessing(resize=None, shortest_edge=224, center_crop=Size(height=224, width=224))

    with pytest.raises(InvalidImage, match="once resized"):
        decode(encode(gradient(1, 4000), "PNG"), steps, LIMIT, "reference")
    assert decode(encode(gradient(10, 190), "PNG"), steps, 2000, "reference").shape == (224, 224, 3)


def test_formats_decoded_in_python_are_refused() -> None:
    """Seconds of the interpreter for a few megabytes are an attack, not a picture."""
    plain = b"P3 2 2 255\n" + b"1 2 3 " * 4

    with pytest.raises(InvalidImage, match="not supported"):
        decode(plain, preprocessing(), LIMIT, "reference")
    assert "ICO" not in FORMATS
    assert "QOI" not in FORMATS


def test_too_many_pixels_are_refused_with_the_limit() -> None:
    """The message has the size, the limit and the setting."""
    with pytest.raises(InvalidImage, match=r"1001x1000.*1000000.*GATEWAY_MAX_IMAGE_PIXELS"):
        decode(encode(gradient(1001, 1000), "PNG"), preprocessing(), LIMIT, "reference")
