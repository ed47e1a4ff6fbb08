"""nvImageCodec decodes what the gateway sends, and a file that one decoder refuses goes on."""

import io
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deploy.triton_backend import decoding
from deploy.triton_backend.decoding import DecoderMissing, JpegDecoder
from deploy.triton_backend.pictures import Bytes
from tests.pictures import encode, gradient, photo, rotated

CPU = torch.device("cpu")


def array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def pillow(data: bytes) -> Bytes:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def decoder() -> JpegDecoder:
    """The real nvImageCodec on the CPU."""
    return JpegDecoder(CPU, threads=1)


@pytest.mark.parametrize(
    "data",
    [
        photo("china"),
        encode(gradient(97, 61), "JPEG", subsampling=0),
        encode(gradient(97, 61), "JPEG", subsampling=1),
        encode(gradient(97, 61).convert("L"), "JPEG"),
        encode(gradient(97, 61), "JPEG", restart_marker_blocks=2),
        encode(gradient(1, 1), "JPEG"),
        photo("china") + b"behind the end",
    ],
)
def test_pictures_are_those_of_pillow(decoder: JpegDecoder, data: bytes) -> None:
    """Every sampling, grey as RGB, and a file with bytes behind its end."""
    (picture,) = decoder.decode([array(data)])

    assert picture is not None
    assert np.abs(picture.numpy().astype(int) - pillow(data)).max() <= 1


def test_orientation_is_left_to_the_plan(decoder: JpegDecoder) -> None:
    """The picture stays as it is stored."""
    (picture,) = decoder.decode([array(rotated(6))])

    assert picture is not None
    assert picture.shape == (120, 60, 3)


def test_bad_file_leaves_its_neighbours_alone(decoder: JpegDecoder) -> None:
    """Only the place of the bad file is empty, and nothing is written to standard error."""
    good, bad = array(photo("china")), array(photo("china")[:9000])

    pictures = decoder.decode([good, bad, good, array(b""), good])

    assert [picture is None for picture in pictures] == [False, True, False, True, False]


def test_bad_files_write_nothing_to_the_log(
    decoder: JpegDecoder, capfd: pytest.CaptureFixture[str]
) -> None:
    """A caller cannot fill Triton's log with damaged pictures."""
    decoder.decode([array(photo("china")[:9000])])

    assert capfd.readouterr().err == ""


PROBE = decoding.PROBE.tobytes()
Calls = list[tuple[str, bytes]]


def scripted_codec(works: dict[str, set[bytes]], calls: Calls) -> SimpleNamespace:
    """NvImageCodec on a machine whose decoders work as scripted.

    Args:
        works: The files that each working decoder decodes, besides the probe.
        calls: Gets the decoder and the file of each call that is no probe.
    """

    def image_of(name: str, file: bytes) -> Any:
        if file not in works[name] | {PROBE}:
            return None
        pixels = np.full((64, 64, 3), len(file) % 256, np.uint8)
        return SimpleNamespace(shape=pixels.shape, pixels=pixels)

    def decoder(backends: list[str] | None, **_: object) -> Any:
        name = "any" if backends is None else backends[0]
        if name not in works:
            raise RuntimeError(f"no decoder {name}")

        def decode(streams: Sequence[bytes], params: object) -> list[Any]:
            calls.extend((name, stream) for stream in streams if stream != PROBE)
            return [image_of(name, stream) for stream in streams]

        return SimpleNamespace(decode=decode)

    return SimpleNamespace(
        Backend=lambda kind: kind,
        BackendKind=SimpleNamespace(HW_GPU_ONLY="HW_GPU_ONLY", CPU_ONLY="CPU_ONLY"),
        CodeStream=lambda file: file.tobytes(),
        DecodeParams=lambda **_: None,
        Decoder=decoder,
        I_RGB="rgb",
        NVIMGCODEC_DEVICE_CPU_ONLY=-99999,
    )


def scripted(
    monkeypatch: pytest.MonkeyPatch, works: dict[str, set[bytes]]
) -> tuple[Calls, JpegDecoder]:
    """A decoder for a GPU, and the calls that it will make."""
    calls: Calls = []
    monkeypatch.setattr(decoding, "_load_codec", lambda: scripted_codec(works, calls))
    # Pictures stay on the CPU, as there may be no GPU here.
    monkeypatch.setattr(JpegDecoder, "_tensor", lambda _, image: torch.from_numpy(image.pixels))
    return calls, JpegDecoder(torch.device("cuda", 0), threads=1)


def test_engines_come_first_and_then_what_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the engines refuse is decoded by another decoder; one that all refuse is bad."""
    calls, decoder = scripted(
        monkeypatch, {"HW_GPU_ONLY": {b"a"}, "any": {b"a", b"bb"}, "CPU_ONLY": {b"a", b"bb"}}
    )

    pictures = decoder.decode([array(data) for data in (b"a", b"bb", b"ccc")])

    assert decoder.names == ["HW_GPU_ONLY", "any"]
    assert [picture is not None for picture in pictures] == [True, True, False]
    assert calls == [
        *(("HW_GPU_ONLY", data) for data in (b"a", b"bb", b"ccc")),
        *(("any", data) for data in (b"bb", b"ccc")),
    ]


@pytest.mark.parametrize(
    ("works", "names"),
    [
        ({"any": {b"a"}}, ["any"]),
        ({"CPU_ONLY": {b"a"}}, ["CPU_ONLY"]),
        ({"HW_GPU_ONLY": {b"a"}, "CPU_ONLY": {b"a"}}, ["HW_GPU_ONLY", "CPU_ONLY"]),
    ],
)
def test_decoders_that_do_not_work_are_left_out(
    works: dict[str, set[bytes]], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU without JPEG engines, or a machine without nvJPEG, decodes by what it has."""
    _, decoder = scripted(monkeypatch, works)

    assert decoder.names == names


def test_machine_without_a_decoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton then reports why the model is not loaded."""
    with pytest.raises(DecoderMissing, match="decodes no JPEG"):
        scripted(monkeypatch, {})


def test_missing_codec_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the extra to install."""

    def missing(name: str) -> None:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr("importlib.import_module", missing)

    with pytest.raises(DecoderMissing, match=r"nvimgcodec.*vitriton\[gpu\]"):
        JpegDecoder(CPU, threads=1)
