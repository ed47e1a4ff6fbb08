"""The gateway sends Triton only JPEGs that a GPU's engines decode as Pillow does."""

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.errors import InvalidImage
from gateway.imaging.images import decode
from gateway.imaging.jpeg_file import has_short_head
from gateway.imaging.jpeg_for_triton import jpeg_for_triton
from gateway.modelspec import Preprocessing
from gateway.tensors import TRANSPOSE
from tests.pictures import ORIENTATION_TAG, PICTURES, encode, gradient, photo, rotated

LIMIT = 10_000_000
EXACT = Preprocessing.model_validate(
    {"resize": {"height": 20, "width": 30}, "resample": "bilinear"}
)
PLAIN = encode(gradient(120, 60), "JPEG")
ADOBE_YCC, ADOBE_RGB = (
    b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform]) for transform in (1, 0)
)
FRAME = b"\xff\xc0"


def with_segment(segment: bytes) -> bytes:
    """The plain JPEG with a segment behind its first one."""
    at = 4 + struct.unpack_from(">H", PLAIN, 4)[0]
    return PLAIN[:at] + segment + PLAIN[at:]


def with_component(index: int, **fields: int) -> bytes:
    """The plain JPEG with another identifier or other sampling factors of a component."""
    data = bytearray(PLAIN)
    at = data.index(FRAME) + 10 + 3 * index
    for name, value in fields.items():
        data[at + ("identifier", "sampling").index(name)] = value
    return bytes(data)


def rgb_by_identifiers() -> bytes:
    data = PLAIN
    for index, identifier in enumerate(b"RGB"):
        found = bytearray(data)
        found[found.index(FRAME) + 10 + 3 * index] = identifier
        data = bytes(found)
    return data


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        photo("china"),
        encode(gradient(50, 40), "JPEG", subsampling=0),
        encode(gradient(50, 40), "JPEG", subsampling=1),
        encode(gradient(50, 40).convert("L"), "JPEG"),
        encode(gradient(50, 40), "JPEG", restart_marker_blocks=1),
        encode(gradient(50, 40), "JPEG", icc_profile=b"a profile"),
        with_segment(ADOBE_YCC),
        PLAIN + b"behind the end",
    ],
)
def test_ordinary_files_are_sent(data: bytes) -> None:
    """What cameras, phones and programs write, up to its end, and only that."""
    file = jpeg_for_triton(data, EXACT, LIMIT)

    assert file is not None
    assert bytes(file.data) == data[: data.rindex(b"\xff\xd9") + 2]
    with Image.open(io.BytesIO(data)) as image:
        assert (file.width, file.height) == image.size
    assert (file.resized, file.turn, file.left, file.top) == ((30, 20), 0, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        encode(gradient(50, 40), "JPEG", progressive=True),
        encode(gradient(50, 40).convert("CMYK"), "JPEG"),
        with_segment(ADOBE_RGB),
        with_segment(b"\xff\xee\x00\x04ab"),
        rgb_by_identifiers(),
        with_component(0, sampling=0x41),
        with_component(0, sampling=0x12),
        with_component(1, sampling=0x21),
        PLAIN.replace(FRAME, b"\xff\xc1"),
        PLAIN.replace(b"\xff\xda\x00\x0c\x03", b"\xff\xda\x00\x0c\x01"),
        PLAIN[:-2],
        photo("china")[:30_000] + PLAIN,
        photo("china")[:30_000] + b"\xff\xc4" + photo("china")[30_000:],
        PLAIN.replace(b"\xff\xdb\x00\x43\x00", b"\xff\xdb\x00\x43\x10"),
        PLAIN.replace(b"\xff\xdb\x00\x43\x00", b"\xff\xdb\x00\x42\x00"),
        with_segment(b"\xff\xe3\xff\xff" + bytes(65533)) + bytes(4 * 1024 * 1024),
        PLAIN[:300],
        PLAIN[:2],
        b"",
        *(data for name, data in PICTURES.items() if "photo" not in name and "exif" not in name),
    ],
)
def test_everything_else_is_decoded_by_the_gateway(data: bytes) -> None:
    """Other JPEGs, truncated files, other formats, and what is no image."""
    assert jpeg_for_triton(data, EXACT, LIMIT) is None


def test_second_picture_of_a_file_is_not_sent() -> None:
    """As in the files of some phones; Pillow decodes the first one."""
    file = jpeg_for_triton(PLAIN + photo("flower"), EXACT, LIMIT)

    assert file is not None
    assert bytes(file.data) == PLAIN


def test_short_head_is_one_without_much_metadata() -> None:
    """Only such a file is read on the event loop; no metadata makes a long head look short."""
    exif = Image.Exif()
    for tag in range(1000):
        exif[0xC000 + tag] = tag
    decoy = with_segment(b"\xff\xe1\x7f\xff" + PLAIN[PLAIN.index(b"\xff\xda") :].ljust(0x7FFD))

    assert has_short_head(PLAIN)
    assert has_short_head(rotated(6))
    assert not has_short_head(encode(gradient(120, 60), "JPEG", exif=exif))
    assert not has_short_head(decoy)


@given(st.binary(max_size=40), st.sampled_from(["png larger", "mode I;16", "webp"]))
def test_only_a_jpeg_has_a_head(data: bytes, name: str) -> None:
    """The bytes of other files may look like markers, also like those of damaged JPEGs."""
    for other in (data, data + PLAIN[2:], PICTURES[name], b"\xff\xd8" + data[:1].strip(b"\xff")):
        if not other.startswith(b"\xff\xd8\xff"):
            assert not has_short_head(other)


@pytest.mark.parametrize(
    "steps",
    [
        {"resample": "lanczos"},
        {"resample": "nearest"},
        {"first_crop": {"height": 0.8, "width": 0.8}},
    ],
)
def test_model_with_other_steps_gets_pixels(steps: dict[str, Any]) -> None:
    """The backend has two filters, and no crop before resizing."""
    preprocessing = Preprocessing.model_validate(EXACT.model_dump() | steps)

    assert jpeg_for_triton(PLAIN, preprocessing, LIMIT) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_plan_is_for_the_upright_picture(orientation: int) -> None:
    """The crop counts from the upright picture's corner, and the size is that before turning."""
    steps = Preprocessing.model_validate(
        {
            "resize": None,
            "shortest_edge": 30,
            "resample": "bicubic",
            "center_crop": {"height": 20, "width": 24},
        }
    )

    file = jpeg_for_triton(rotated(orientation), steps, LIMIT)

    assert file is not None
    lies = orientation >= 5
    assert (file.width, file.height) == ((60, 120) if lies else (120, 60))
    assert file.resized == ((30, 60) if lies else (60, 30))
    assert (file.left, file.top) == (18, 5)
    assert bool(file.turn & TRANSPOSE) == lies


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_orientation_without_a_meaning_turns_nothing(orientation: int) -> None:
    """As Pillow does."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation

    file = jpeg_for_triton(encode(gradient(120, 60), "JPEG", exif=exif), EXACT, LIMIT)

    assert file is not None
    assert file.turn == 0


@pytest.mark.parametrize("limit", [120 * 60 - 1, 100])
def test_file_over_the_limit_is_refused_as_by_decoding(limit: int) -> None:
    """With the same message, before anything is sent."""
    with pytest.raises(InvalidImage) as found:
        jpeg_for_triton(PLAIN, EXACT, limit)
    with pytest.raises(InvalidImage) as wanted:
        decode(PLAIN, EXACT, limit, "fast")

    assert str(found.value) == str(wanted.value)


@given(st.integers(0, len(PLAIN)), st.binary(max_size=8), st.integers(0, 8))
def test_any_bytes_are_sent_decoded_or_refused(at: int, insert: bytes, left_out: int) -> None:
    """Damage anywhere raises no other error, and a file that is sent is a part of what came."""
    data = PLAIN[:at] + insert + PLAIN[at + left_out :]
    try:
        file = jpeg_for_triton(data, EXACT, LIMIT)
    except InvalidImage:
        return
    assert file is None or data.startswith(bytes(file.data))
