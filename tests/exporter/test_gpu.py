"""Tests that need a machine with an NVIDIA GPU."""

from pathlib import Path

import pytest
import torch

from exporter.check import check_entry
from exporter.checkpoint import load_checkpoint
from exporter.precision import Precision
from exporter.preprocessing import read_image_steps
from exporter.sample import eager_logits, sample_images
from gateway.modelspec import ModelSpec
from tests.checkpoints import save_deit_distilled, save_vit
from tests.exporter.entries import MAX_BATCH, export
from tests.families.checkpoints import AMPLIFYING, FAMILIES, save_family

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")

PRECISIONS: list[Precision] = ["fp32", "bf16", "fp16"]
# Untrained models of the amplifying families lose their answers in bf16.
EXPORTS: list[tuple[str, Precision]] = [
    *((family, precision) for family in FAMILIES for precision in PRECISIONS),
    *((family, "fp32") for family in AMPLIFYING),
]


def assert_graph_answers_as_recorded(spec: ModelSpec, checkpoint: Path, entry: Path) -> None:
    """Run the written file on the GPU as Triton does, against the checkpoint on the CPU."""
    assert spec.low_precision is not None
    assert spec.low_precision.device == "gpu"
    source = load_checkpoint(str(checkpoint), None, random_weights=False, allow_pickle=False)
    steps = read_image_steps(source.image_processor, 3)
    images = sample_images(MAX_BATCH, steps)
    wanted = eager_logits(source.model, steps, images)

    graph = torch.jit.load(str(entry / "1" / "model.pt"), map_location="cuda").eval()
    with torch.inference_mode():
        logits = graph(torch.from_numpy(images).to("cuda"))

    assert logits.device.type == "cuda"
    difference = (logits.cpu() - wanted).abs().max().item()
    # These are other pictures than the export's, but for those of one colour.
    assert difference <= 3 * spec.low_precision.max_abs_logit_difference


@pytest.mark.parametrize("save", [save_vit, save_deit_distilled])
def test_automatic_precision_is_fp16(save: object, tmp_path: Path) -> None:
    """The saved graph runs on the GPU within the tolerance of half precision."""
    assert callable(save)
    checkpoint = save(tmp_path / "model")

    spec = export(checkpoint, tmp_path / "models", precision="auto")

    assert spec.dtype == "fp16"
    assert_graph_answers_as_recorded(spec, checkpoint, tmp_path / "models" / "model")


@pytest.mark.parametrize(("family", "precision"), EXPORTS)
def test_every_family_is_exported_as_the_gpu_computes_it(
    family: str, precision: Precision, tmp_path: Path
) -> None:
    """The graph loads on the GPU and its answers are as recorded; the check agrees."""
    checkpoint = save_family(family, tmp_path / "checkpoint")

    spec = export(checkpoint, tmp_path / "models", precision=precision)

    entry = tmp_path / "models" / "checkpoint"
    assert spec.dtype == precision
    assert_graph_answers_as_recorded(spec, checkpoint, entry)
    assert check_entry(entry, str(checkpoint), allow_pickle=False) == spec
