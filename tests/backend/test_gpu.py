"""Our Triton backend on a GPU: its CUDA graphs, its JPEG engines, and the whole stack."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from deploy.triton_backend.decoding import ANY, ENGINES, JpegDecoder
from deploy.triton_backend.graphs import ServedGraph
from exporter.config_pbtxt import ServingOptions
from exporter.export import ExportRequest, export_model
from tests.checkpoints import save_vit
from tests.pictures import encode, gradient, photo
from tests.stack import Stack, running_stack

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")

MOST = 32
SHAPE = (224, 224, 3)
SIZES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
MODEL = "/models/test/vit"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT in fp16."""
    folder = tmp_path_factory.mktemp("gpu")
    options = ServingOptions(max_batch_size=MOST)
    checkpoint = save_vit(folder / "checkpoint")
    export_model(
        ExportRequest(
            str(checkpoint), folder / "models", name="test/vit", precision="fp16", options=options
        )
    )
    return folder / "models"


@torch.inference_mode()
def test_cuda_graphs_give_the_logits_of_ordinary_calls(repository: Path) -> None:
    """For every batch size, padded or not, and after larger batches in the same memory."""
    file = repository / "test--vit" / "1" / "model.pt"
    device = torch.device("cuda", 0)
    graph, plain = (ServedGraph(file, device, SHAPE, MOST) for _ in range(2))

    assert graph.capture(SIZES) == {}
    assert graph.captured_sizes == SIZES

    random = torch.Generator(device).manual_seed(0)
    for images in (*range(MOST, 0, -1), MOST, 5):
        pixels = torch.randint(
            0, 256, (images, *SHAPE), dtype=torch.uint8, device=device, generator=random
        )
        found, wanted = (each.logits(each.inputs(images).copy_(pixels)) for each in (graph, plain))
        tolerance = 0.01 * wanted.abs().max().item()
        assert (found - wanted).abs().max().item() <= tolerance
        best = wanted.topk(2, dim=-1).values
        leads = best[:, 0] - best[:, 1] > 2 * tolerance
        assert torch.equal(found.argmax(-1)[leads], wanted.argmax(-1)[leads])
        assert leads.any()


class _Unpredictable(torch.nn.Module):
    """For one batch size the number of kernels depends on the pixels, which no graph can have."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        sums = pixels.to(torch.float32).sum((1, 2))
        if pixels.shape[0] == 4 and bool(sums.sum() > -1):
            sums = sums + 1
        return sums


@torch.inference_mode()
def test_size_that_cannot_be_captured_leaves_nothing_behind(tmp_path: Path) -> None:
    """The other sizes are captured, in a working pool, and the stream is the one of before."""
    file, device = tmp_path / "model.pt", torch.device("cuda", 0)
    torch.jit.save(torch.jit.script(_Unpredictable()), str(file))
    graph = ServedGraph(file, device, (2, 2, 3), 8)

    failures = graph.capture([1, 2, 4, 8])

    assert list(failures) == [4]
    assert graph.captured_sizes == [1, 2, 8]
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    for images in (8, 1, 2):
        found = graph.logits(graph.inputs(images).fill_(images))
        assert torch.equal(found, torch.full((images, 3), 4.0 * images))


@pytest.mark.parametrize("only", [ENGINES, ANY])
@pytest.mark.parametrize(
    "data",
    [
        photo("china"),
        photo("flower"),
        encode(gradient(301, 200), "JPEG", subsampling=0),
        encode(gradient(301, 200), "JPEG", subsampling=1),
        encode(gradient(301, 200).convert("L"), "JPEG"),
    ],
    ids=["china", "flower", "4:4:4", "4:2:2", "grey"],
)
def test_decoders_of_the_gpu_give_pillows_pixels(data: bytes, only: str) -> None:
    """To within one grey level, on the device: the JPEG engines, and what else there is.

    A GPU without JPEG engines, such as a T4, fails here: docs/gpu.md says what it does instead.
    """
    decoder = JpegDecoder(torch.device("cuda", 0), threads=1, only=only)

    (picture,) = decoder.decode([np.frombuffer(data, np.uint8)])

    assert picture is not None
    assert picture.device.type == "cuda"
    exact = np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(picture.cpu().numpy() - exact).max() <= 1


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`vitriton serve` with Triton decoding on the GPU."""
    folder = tmp_path_factory.mktemp("serve")
    with running_stack(["test/vit"], repository, folder, profile="gpu-jpeg") as running:
        yield running


def metric(stack: Stack, name: str) -> int:
    text = httpx.get(stack.triton_metrics_url).text
    match = re.search(rf"^{name} (\d+)", text, re.MULTILINE)
    assert match, text
    return int(match[1])


def test_jpeg_is_decoded_and_computed_on_the_gpu(stack: Stack) -> None:
    """The answer is that of the pixels, every size is captured, and no JPEG is refused."""
    with httpx.Client(base_url=stack.url, timeout=60, headers={"x-use-cache": "false"}) as client:
        jpeg = client.post(MODEL, content=photo("china"))
        png = encode(Image.open(io.BytesIO(photo("china"))), "PNG")
        pixels = client.post(MODEL, content=png)
        counts = client.get("/metrics").text

    assert 'gateway_images_sent_total{form="jpeg"} 1.0' in counts
    assert 'gateway_images_sent_total{form="pixels"} 1.0' in counts
    assert jpeg.headers["x-compute-type"] == "gpu"
    assert [each["label"] for each in jpeg.json()] == [each["label"] for each in pixels.json()]
    of = 'model="test--vit",outcome="%s",version="1"'
    captured, failed = (
        metric(stack, re.escape(f"vitriton_cuda_graphs_total{{{of % outcome}}}"))
        for outcome in ("captured", "failed")
    )
    assert (captured, failed) == (2 * len(SIZES), 0)
    undecodable = 'vitriton_undecodable_jpegs_total{model="test--vit",version="1"}'
    assert metric(stack, re.escape(undecodable)) == 0
