"""Files that cost far more to decode than their pixels suggest are refused before decoding."""

import contextlib
import io
import struct
import sys
import tracemalloc
import zlib
from types import FrameType
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from gateway.errors import InvalidImage
from gateway.imaging.formats import check_file
from gateway.imaging.images import decode
from gateway.modelspec import Preprocessing, Size
from gateway.settings import DecodeMode
from tests import hostile_images as hostile
from tests.pictures import ORIENTATION_TAG, encode, gradient, photo

if TYPE_CHECKING:
    from _typeshed import TraceFunction

LIMIT = 10_000_000
STEPS = Preprocessing(resize=Size(height=8, width=12), resample="bilinear")
LONG = zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))
PICTURE = gradient(48, 32)
JPEG = encode(PICTURE, "JPEG")

EMPTY_BOX = hostile.box(b"free", b"")


def exif_text(text: bytes) -> bytes:
    """A PNG chunk of compressed text that Pillow reads as EXIF."""
    return hostile.png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))


# Units of two bytes, a megabyte altogether.
UNITS = b"\x12\0" * 500_000
HEAVY_AVIF = {
    "AVIF of overlapping parts": (hostile.avif_of_units(UNITS, spans=100), "damaged"),
    "AVIF of many units": (hostile.avif_of_units(UNITS), "20000 units"),
    "AVIF of many metas": (hostile.avif_of_units(UNITS, metas=5), "damaged"),
    "AVIF of tracks that overlap": (hostile.avif_of_tracks(3, EMPTY_BOX + UNITS), "damaged"),
}

REFUSED = {
    "progressive JPEG of 101 scans": (hostile.jpeg_with_scans(101, PICTURE), "100 scans"),
    "baseline JPEG of 101 scans": (
        hostile.jpeg_with_scans(101, PICTURE, is_progressive=False),
        "100 scans",
    ),
    "JPEG of many comments": (JPEG[:2] + hostile.jpeg_segment(0xFE) * 4_001 + JPEG[2:], "segments"),
    "JPEG of many tables between its scans": (
        encode(PICTURE, "JPEG", progressive=True)[:-2] + hostile.jpeg_segment(0xFE) * 4_001,
        "segments",
    ),
    "JPEG of many fill bytes": (JPEG[:2] + b"\xff" * 70_000 + JPEG[2:], "belong to no segment"),
    "JPEG of many stray bytes": (JPEG[:20] + bytes(70_000) + JPEG[20:], "belong to no segment"),
    "JPEG of stray bytes alone": (b"\xff\xd8\xff" + bytes(70_000), "belong to no segment"),
    "PNG of many chunks": (hostile.png_with(hostile.png_chunk(b"abCd") * 10_001), "chunks"),
    "PNG of many empty pixels": (hostile.png_with(hostile.png_chunk(b"IDAT") * 10_001), "chunks"),
    "PNG of a long EXIF": (
        hostile.png_with(hostile.png_chunk(b"zTXt", b"Raw profile type exif\0\0" + LONG)),
        "longer than 1048576 bytes",
    ),
    "PNG of a long XMP": (
        hostile.png_with(hostile.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG)),
        "longer than 1048576 bytes",
    ),
    "PNG of a text without end": (hostile.png_with(exif_text(bytes(2**25))), "longer than 1048576"),
    "PNG of two texts that are long together": (
        hostile.png_with(
            exif_text(bytes(600_000))
            + hostile.png_chunk(
                b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(600_000))
            )
        ),
        "longer than 1048576 bytes",
    ),
    "PNG of many texts that turn it": (hostile.png_with(exif_text(b"") * 9), "8 texts"),
    "GIF of many extensions": (hostile.gif_with(b"!\xfe\0" * 40_000), "65536 blocks"),
    "GIF of a long extension": (
        hostile.gif_with(b"!\xff" + b"\1a" * 70_000 + b"\0"),
        "65536 blocks",
    ),
    "TIFF of many strips": (hostile.striped_tiff(65_537), "65537 strips or tiles"),
    "PNM of a long comment": (b"P6\n#" + b"a" * 70_000 + b"\n1 1 255\nabc", "65536 bytes"),
    "PNM of long white space": (b"P4\n1" + b" " * 70_000 + b"1\na", "65536 bytes"),
    "PNM that is decoded in Python": (b"P6 1 1 254\nabc", "not supported"),
    "AVIF of hidden frames": (hostile.avif_with_frames(5), "4 frames"),
    "PNM of Pillow's own kind": (b"P0CMYK#" + b"a" * 70_000 + b"\n1 1 255\nabcd", "65536 bytes"),
    "AVIF of many items": (hostile.avif_with_items(4_001), "4000 items"),
    "AVIF of many items in a track": (
        hostile.avif_of_tracks(1, hostile.items_box(4_001)),
        "4000 items",
    ),
    "AVIF of many references": (hostile.avif_with_references(8_001), "8000 references"),
    "AVIF of many properties": (
        hostile.avif_with_associations(4_001),
        "4000 items with properties",
    ),
    "AVIF of many parts": (hostile.avif_of_units(b"", spans=4_001), "4000 parts of items"),
    "AVIF of many boxes": (hostile.AVIF_HEAD + EMPTY_BOX * 20_000, "20000 boxes"),
    "AVIF of many tracks": (
        hostile.AVIF_HEAD + hostile.box(b"moov", hostile.box(b"trak", b"") * 9),
        "8 tracks",
    ),
    "AVIF of two movies": (hostile.AVIF_HEAD + hostile.box(b"moov", b"") * 2, "damaged"),
    **HEAVY_AVIF,
}

SERVED = {
    "progressive JPEG of 100 scans": hostile.jpeg_with_scans(100, PICTURE),
    "JPEG of 500 segments": JPEG[:2] + hostile.jpeg_segment(0xE1, bytes(60_000)) * 500 + JPEG[2:],
    "PNG of small chunks": hostile.png_with(hostile.png_chunk(b"abCd") * 9_000),
    "PNG of several texts that turn it": hostile.png_with(exif_text(bytes(100_000)) * 8),
    "PNG with zeros behind it": encode(PICTURE, "PNG") + bytes(1_000_000),
    "GIF of long metadata": hostile.gif_with(b"!\xff" + (b"\xff" + b"a" * 255) * 4_000 + b"\0"),
    "TIFF of rows": hostile.striped_tiff(60_000),
    "PNM with a comment": b"P6 # by a scanner\n1 # wide\n1\n255\nabc",
    "animated AVIF": encode(PICTURE, "AVIF", save_all=True, append_images=[PICTURE] * 20),
    "AVIF with transparency": encode(Image.effect_noise((48, 32), 90).convert("LA"), "AVIF"),
    "animated GIF": encode(PICTURE, "GIF", save_all=True, append_images=[gradient(32, 48)] * 20),
}


@pytest.mark.parametrize("mode", get_args(DecodeMode))
@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_file_with_too_many_parts_is_refused_with_the_limit(
    data: bytes, message: str, mode: DecodeMode
) -> None:
    """In every image mode, a file with too many parts is refused, and the message has the limit."""
    with pytest.raises(InvalidImage, match=message):
        decode(data, STEPS, LIMIT, mode)


@pytest.mark.parametrize("mode", get_args(DecodeMode))
@pytest.mark.parametrize("data", SERVED.values(), ids=SERVED.keys())
def test_unusual_file_within_the_limits_is_decoded(data: bytes, mode: DecodeMode) -> None:
    """In every image mode, unusual files within the limits are decoded."""
    assert decode(data, STEPS, LIMIT, mode).shape == (8, 12, 3)


def test_larger_picture_may_have_fewer_scans() -> None:
    """The limit of scans falls with the size of a JPEG, but passes what encoders write."""
    pixels = PICTURE.width * PICTURE.height
    ordinary = encode(PICTURE, "JPEG", progressive=True)
    cmyk = encode(PICTURE.convert("CMYK"), "JPEG", progressive=True)

    for data in (ordinary, cmyk, hostile.jpeg_with_scans(20, PICTURE)):
        assert check_file(data, pixels).data == data
    with pytest.raises(InvalidImage, match="more than 20 scans"):
        check_file(hostile.jpeg_with_scans(21, PICTURE), pixels)
    with pytest.raises(InvalidImage, match="more than 40 scans"):
        check_file(hostile.jpeg_with_scans(41, PICTURE), 2 * pixels)


def test_scans_hidden_behind_a_false_end_are_counted() -> None:
    """An end marker inside a comment does not end the count; scans after the end do not count."""
    jpeg = encode(PICTURE, "JPEG", progressive=True)
    scans = hostile.last_scan(jpeg) * 200
    hidden = jpeg[:-2] + hostile.jpeg_segment(0xFE, b"\xff\xd9") + scans + b"\xff\xd9"

    with pytest.raises(InvalidImage, match="100 scans"):
        check_file(hidden, LIMIT)
    assert check_file(jpeg + scans, LIMIT).jpeg is not None


@pytest.mark.parametrize("name", [name for name in REFUSED if "in Python" not in name])
def test_file_is_refused_before_pillow_opens_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is refused before Pillow opens it, since opening costs most for some files."""
    monkeypatch.delattr(Image, "open")

    with pytest.raises(InvalidImage):
        decode(REFUSED[name][0], STEPS, LIMIT, "fast")


@pytest.mark.parametrize("name", REFUSED)
def test_check_of_a_refused_file_is_cheap(name: str) -> None:
    """The check of a file runs few lines of Python and takes little memory."""
    data = REFUSED[name][0]
    lines = 0

    def count(frame: FrameType, event: str, _: object) -> "TraceFunction | None":
        nonlocal lines
        lines += event == "line"
        return count if "/gateway/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(count)
    try:
        with contextlib.suppress(InvalidImage):
            check_file(data, LIMIT)
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert lines < 1_000_000
    assert peak < 2 * len(data) + 4_000_000


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP"])
def test_png_with_a_long_text_is_decoded_without_the_text(kind: bytes) -> None:
    """A PNG with a text or profile over Pillow's limits has the pixels of the PNG without it."""
    heads = {b"tEXt": b"a\0", b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}
    text = bytes(70 * 2**20) if kind == b"tEXt" else LONG
    data = hostile.png_with(hostile.png_chunk(kind, heads[kind] + text), PICTURE)

    pixels = decode(data, STEPS, LIMIT, "reference")

    assert np.array_equal(pixels, decode(encode(PICTURE, "PNG"), STEPS, LIMIT, "reference"))


@pytest.mark.parametrize("mode", get_args(DecodeMode))
def test_png_is_turned_by_its_texts(mode: DecodeMode) -> None:
    """XMP and ImageMagick's EXIF profile turn a PNG upright, also if they follow the pixels."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    profile = (
        b"\nexif\n" + str(len(exif.tobytes())).encode() + b"\n" + exif.tobytes().hex().encode()
    )
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    turned = {
        "profile": hostile.png_chunk(
            b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)
        ),
        "XMP": hostile.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
    }
    steps = Preprocessing(resize=None, resample="bilinear")

    for name, chunk in turned.items():
        behind = encode(PICTURE, "PNG").replace(hostile.png_chunk(b"IEND"), chunk)
        for data in (hostile.png_with(chunk, PICTURE), behind + hostile.png_chunk(b"IEND")):
            assert decode(data, steps, LIMIT, mode).shape == (48, 32, 3), name


def test_tags_that_share_their_bytes_take_little_memory() -> None:
    """Tags of a TIFF that share one megabyte of its bytes are not copied into memory."""
    shared = dict.fromkeys(range(40000, 43000), (7, 1000000, 40000))
    tags = {
        256: (4, 1, 8),
        257: (4, 1, 1),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 40_000),
        277: (3, 1, 1),
        278: (4, 1, 1),
        279: (4, 1, 8),
    }
    data = hostile.tiff(shared | tags, bytes(1_000_000), at=40_000)

    tracemalloc.start()
    try:
        with pytest.warns(UserWarning, match="Tag data larger than file"):
            decode(data, STEPS, LIMIT, "fast")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 20_000_000


def test_ordinary_files_are_not_copied() -> None:
    """A file without parts to remove is passed on without a copy."""
    for data in (photo("china"), encode(PICTURE, "PNG"), encode(PICTURE, "WEBP")):
        assert check_file(data, LIMIT).data is data


def test_truncated_file_passes_the_checks() -> None:
    """The checks accept a file cut at any byte, or with offsets past its end."""
    for fmt in ("AVIF", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP"):
        file = io.BytesIO()
        PICTURE.save(file, fmt)
        data = file.getvalue()
        for end in range(min(len(data), 700)):
            check_file(data[:end], LIMIT)
    check_file(b"II*\0" + struct.pack("<I", 2**32 - 1), LIMIT)
    check_file(b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**64 - 1), LIMIT)
