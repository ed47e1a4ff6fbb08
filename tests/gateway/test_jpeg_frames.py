"""A JPEG with any kind of frame is decoded alike in every image mode, or refused.

A decoder that reads past its memory may crash, so another process decodes.
"""

import base64
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.imaging.jpeg_file import check_jpeg
from tests.hostile_images import jpeg_segment, one_scan_for_each_component, with_frame
from tests.pictures import encode, gradient, photo

ROOT = Path(__file__).parents[2]
JPEGS = Path(__file__).with_name("jpegs")
SAMPLES = sorted(JPEGS.glob("*.jpg"))
LIMIT = 10_000_000
# Grey levels between modes: `fast` for bilinear, and hard edges decoded to half their pixels.
FAST_BOUND, SCALED_BOUND = 1, 64
FRAMES = [kind for kind in range(0xC0, 0xE0) if kind not in {0xC4, 0xCC, *range(0xD0, 0xDE)}]


def decode_elsewhere(files: list[bytes]) -> list[dict[str, list[int] | str]]:
    """Pixels or error of each file by image mode, decoded in another process."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.gateway.jpeg_program"],
        input=b"\n".join(map(base64.b64encode, files)),
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0, f"file {len(answers)}: {result.returncode}, {result.stderr!r}"
    assert len(answers) == len(files)
    return answers


def assert_alike(answer: dict[str, list[int] | str], name: str, scaled_bound: int) -> None:
    """Assert that all modes have the same error, or pixels within the bounds of the modes."""
    wanted = answer["reference"]
    for mode, bound in {"fast": FAST_BOUND, "scaled": scaled_bound}.items():
        if isinstance(wanted, str):
            assert answer[mode] == wanted, (name, mode)
        else:
            assert np.abs(np.subtract(answer[mode], wanted)).max() <= bound, (name, mode)


def test_modes_agree_on_crafted_frames() -> None:
    """All modes agree on a JPEG under any frame marker, precision and number of components."""
    files = {}
    picture = gradient(96, 64)
    for mode, is_progressive in product(["L", "RGB", "CMYK"], [False, True]):
        jpeg = encode(picture.convert(mode), "JPEG", progressive=is_progressive)
        for kind, precision, components in product(FRAMES, [8, 12, 16], [1, 2, 3, 4]):
            name = f"{mode} {is_progressive} {kind:x} {precision} bits {components} components"
            files[name] = with_frame(jpeg, kind=kind, precision=precision, components=components)

    answers = decode_elsewhere(list(files.values()))

    for name, answer in zip(files, answers, strict=True):
        # Under another frame the data decode to noise, which scaling smooths.
        assert_alike(answer, name, 255)


def test_modes_agree_on_frames_of_real_encoders() -> None:
    """All modes agree on lossless, arithmetic, 12-bit and 16-bit JPEGs that encoders wrote."""
    files = {path.stem: path.read_bytes() for path in SAMPLES}
    assert len(files) == 9

    answers = dict(zip(files, decode_elsewhere(list(files.values())), strict=True))

    for name, answer in answers.items():
        assert_alike(answer, name, FAST_BOUND)
        assert isinstance(answer["reference"], str) == ("-bit-" in name)


def test_long_arithmetic_jpeg_is_decoded_in_every_mode() -> None:
    """An arithmetic JPEG is decoded even if its scan is longer than the 64 KiB Pillow passes on."""
    short = (JPEGS / "arithmetic-rgb.jpg").read_bytes()
    scan = short.index(b"\xff\xda")
    # Most of the scan comes after the first 64 KiB.
    long = short[:scan] + jpeg_segment(0xE5, bytes(65_500 - scan)) + short[scan:]

    (answer,) = decode_elsewhere([long])

    assert answer == decode_elsewhere([short])[0]
    assert not isinstance(answer["reference"], str)


def test_only_huffman_frames_are_scalable() -> None:
    """Only Huffman frames of eight bits with one or three components are scalable."""
    scaled = {
        encode(gradient(96, 64), "JPEG"),
        encode(gradient(96, 64).convert("L"), "JPEG"),
        encode(gradient(96, 64), "JPEG", progressive=True),
        with_frame(encode(gradient(96, 64), "JPEG"), kind=0xC1),
    }
    for data in scaled:
        head = check_jpeg(data, LIMIT)
        assert head is not None
        assert head.frame.is_scalable
    whole = [path.read_bytes() for path in SAMPLES if "-bit-" not in path.stem]
    for data in [*whole, encode(gradient(96, 64).convert("CMYK"), "JPEG")]:
        head = check_jpeg(data, LIMIT)
        assert head is not None
        assert not head.frame.is_scalable


@pytest.mark.parametrize("mode", ["reference", "fast", "scaled"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": 0xC1, "precision": 12}, "JPEG with 12 bits a sample is not supported"),
        ({"kind": 0xC0, "components": 2}, "JPEG with 2 components is not supported"),
        ({"kind": 0xC5}, "Hierarchical JPEG is not supported"),
        ({"kind": 0xDE}, "Hierarchical JPEG is not supported"),
    ],
)
def test_jpeg_of_a_kind_that_is_not_decoded_is_refused_by_name(
    mode: str, change: dict[str, int], message: str
) -> None:
    """A sound JPEG of a kind that is not decoded gets an error that names the kind."""
    (answer,) = decode_elsewhere([with_frame(photo("china"), **{"kind": 0xC0, **change})])

    assert message in answer[mode]


def test_second_frame_is_refused() -> None:
    """A JPEG with two frames is damaged: the check and the decoder might read different ones."""
    lossless = (JPEGS / "lossless-rgb.jpg").read_bytes()
    at = lossless.index(b"\xff\xc3")
    baseline = lossless[:at] + jpeg_segment(0xC0, lossless[at + 4 : at + 19]) + lossless[at:]

    (answer,) = decode_elsewhere([baseline])

    assert set(answer.values()) == {"image file is truncated or damaged"}


def test_unusual_sound_jpegs_are_decoded() -> None:
    """All modes decode sound JPEGs with fill bytes, several scans or a second picture."""
    picture = gradient(96, 64)
    jpeg = encode(picture, "JPEG")
    at = jpeg.index(b"\xff\xdb")
    files = {
        "fill bytes": jpeg[:at] + b"\xff" * 500 + jpeg[at:],
        "a scan for each component": one_scan_for_each_component(picture),
        "restart markers": encode(picture, "JPEG", restart_marker_rows=1),
        "two pictures": encode(picture, "MPO", save_all=True, append_images=[picture]),
        "something behind it": jpeg + bytes(100_000) + jpeg * 200,
    }

    for name, answer in zip(files, decode_elsewhere(list(files.values())), strict=True):
        assert_alike(answer, name, SCALED_BOUND)
        assert not isinstance(answer["reference"], str), name


def test_lossless_jpeg_is_decoded_whole() -> None:
    """Mode `scaled` decodes all pixels of a lossless JPEG, since some decoders cannot scale it."""
    lossless = JPEGS / "lossless-rgb.jpg"

    jpeg, png = decode_elsewhere([lossless.read_bytes(), encode(Image.open(lossless), "PNG")])

    assert jpeg["scaled"] == png["scaled"]
