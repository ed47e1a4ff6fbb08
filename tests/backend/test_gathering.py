"""Pictures of all kinds become one batch, in which a bad one disturbs no other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploy.triton_backend import fitting, gathering
from deploy.triton_backend.decoding import JpegDecoder
from deploy.triton_backend.gathering import Batch, FileGathering, chunks
from deploy.triton_backend.graphs import ServedGraph
from deploy.triton_backend.pictures import Fitting, Picture
from gateway.imaging.images import decode
from gateway.imaging.jpeg_for_triton import jpeg_for_triton
from gateway.modelspec import ModelSpec, Preprocessing, Size
from gateway.tensors import Picture as SentPicture
from gateway.tensors import Pixels
from gateway.triton.client import LoadedModel
from gateway.triton.payload import payload
from tests.pictures import encode, gradient, photo, rotated

LIMIT = 10_000_000
SIZE = Size(height=32, width=48)
STEPS = Preprocessing(resize=SIZE, resample="bilinear")
MODEL = LoadedModel(
    ModelSpec.model_construct(preprocessing=STEPS, input_size=SIZE),  # type: ignore[call-arg]
    *("a--b", "contract", "cpu", 64, True),
)
CPU = torch.device("cpu")
JPEGS = [
    photo("china"),
    encode(gradient(97, 61), "JPEG"),
    *(rotated(orientation) for orientation in (1, 3, 6, 8)),
]
# Without its table of quantisation no decoder can decode it.
BAD = encode(gradient(97, 61), "JPEG").replace(b"\xff\xdb", b"\xff\xec")


class _First(torch.nn.Module):
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values[:, 0, 0].to(torch.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FileGathering:
    """For a model of 32×48 pixels, with the real decoder on the CPU."""
    file: Path = tmp_path_factory.mktemp("graph") / "model.pt"
    example = torch.zeros((2, SIZE.height, SIZE.width, 3), dtype=torch.uint8)
    torch.jit.save(torch.jit.trace(_First(), example), str(file))
    graph = ServedGraph(file, CPU, (SIZE.height, SIZE.width, 3), most_images=64)
    return FileGathering(graph, JpegDecoder(CPU, threads=1), "bilinear")


def sent(data: bytes) -> SentPicture:
    """What the gateway sends for a file."""
    jpeg = jpeg_for_triton(data, STEPS, LIMIT)
    return decode(data, STEPS, LIMIT, "fast") if jpeg is None else jpeg


def wanted(data: bytes) -> Pixels:
    return decode(data, STEPS, LIMIT, "reference")


def call(pictures: Sequence[SentPicture]) -> torch.Tensor:
    content = payload(MODEL, pictures)
    return torch.frombuffer(bytearray(b"".join(content.parts)), dtype=torch.uint8).reshape(
        content.shape
    )


def images_of(batch: Batch) -> Pixels:
    """The batch in the order of the requests."""
    assert batch.rows is not None
    images: Pixels = batch.images[batch.rows].numpy()
    return images


def assert_near(found: Pixels, data: bytes) -> None:
    assert np.abs(found.astype(int) - wanted(data)).max() <= 1


@given(st.lists(st.lists(st.integers(0, len(JPEGS)), min_size=1, max_size=4), max_size=5))
def test_order_is_that_of_the_requests(files: FileGathering, requests: list[list[int]]) -> None:
    """However pictures are grouped for resizing, each has its own row. The last one is pixels."""
    sources = [*JPEGS, encode(gradient(97, 61), "PNG")]
    calls = [call([sent(sources[index]) for index in request]) for request in requests]

    batch = files.gather(calls)

    order = [index for request in requests for index in request]
    assert batch.undecodable == []
    for found, index in zip(images_of(batch), order, strict=True):
        assert_near(found, sources[index])


def test_bad_pictures_leave_the_others_alone(files: FileGathering) -> None:
    """One that no decoder takes, one whose size is not that of its head, and an empty call."""
    other_size = sent(JPEGS[1])._replace(width=96)  # type: ignore[union-attr]  # a JPEG
    pictures = [sent(JPEGS[0]), sent(BAD), sent(JPEGS[1]), other_size, sent(JPEGS[0])]
    empty = torch.zeros((1, 32), dtype=torch.uint8)

    batch = files.gather([call(pictures[:3]), empty, call(pictures[3:])])

    assert batch.undecodable == [1, 3, 4]
    assert batch.bad_jpegs == 2, "an empty picture is no JPEG"
    images = images_of(batch)
    for row, data in ((0, JPEGS[0]), (2, JPEGS[1]), (5, JPEGS[0])):
        assert_near(images[row], data)


def test_group_that_cannot_be_resized_fails_alone(
    files: FileGathering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch refuses very large factors on a GPU; the gateway then decodes those pictures."""

    def refuse_china(pictures: torch.Tensor, *rest: object) -> torch.Tensor:
        if pictures.shape[1:3] == (427, 640):
            raise RuntimeError("Too much shared memory required")
        return fitting.fit(pictures, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(gathering, "fit", refuse_china)

    batch = files.gather([call([sent(data) for data in (JPEGS[0], JPEGS[1], JPEGS[0])])])

    assert batch.undecodable == [0, 2]
    assert_near(images_of(batch)[1], JPEGS[1])


def test_decoder_that_fails_as_a_whole_is_no_reason_to_fail(
    files: FileGathering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory, say: then all pictures go back to the gateway."""

    def fail(streams: object) -> Sequence[object]:
        raise RuntimeError("out of memory")

    (only,) = files._decoder._decoders
    monkeypatch.setattr(files._decoder, "_decoders", [only._replace(decode=fail)])

    assert files.gather([call([sent(JPEGS[0])])]).undecodable == [0]


@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)) | st.none(), max_size=30))
def test_chunks_bound_the_pixels_in_memory(sizes: list[tuple[int, int] | None]) -> None:
    """Every JPEG is in one chunk, in order; only a lone picture may be over the bound."""
    nothing = np.zeros(0, np.uint8)
    pictures = [Picture(nothing, Fitting(*(size or (0, 0)), 1, 1, 0, 0, 0)) for size in sizes]

    found = list(chunks(pictures))

    assert [at for chunk in found for at in chunk] == [at for at, size in enumerate(sizes) if size]
    for chunk in found:
        pixels = sum(p.fitting.width * p.fitting.height for p in (pictures[at] for at in chunk))
        assert len(chunk) == 1 or pixels <= 24_000_000
