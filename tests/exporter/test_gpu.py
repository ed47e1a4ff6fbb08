"""Tests that need a machine with an NVIDIA GPU."""

from pathlib import Path

import pytest
import torch

from exporter.export import ExportRequest, export_model
from exporter.graph import load_graph
from tests.checkpoints import save_deit_distilled, save_vit
from tests.families.checkpoints import FAMILIES, save_family

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")


@pytest.mark.parametrize("save", [save_vit, save_deit_distilled])
def test_automatic_precision_is_fp16_and_measured(save: object, tmp_path: Path) -> None:
    """The saved graph runs on the GPU within the tolerance of half precision."""
    assert callable(save)

    spec = export_model(ExportRequest(str(save(tmp_path / "model")), tmp_path / "models"))

    assert spec.dtype == "fp16"
    assert spec.low_precision is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_on_the_gpu(family: str, tmp_path: Path) -> None:
    """No tensor of the graph stays on the CPU it was traced on."""
    checkpoint = save_family(family, tmp_path / "checkpoint")

    export_model(ExportRequest(str(checkpoint), tmp_path / "models", precision="fp32"))

    graph = load_graph(tmp_path / "models" / "checkpoint" / "1" / "model.pt", "cuda")
    pixels = torch.zeros((2, 64, 64, 3), dtype=torch.uint8, device="cuda")
    assert graph(pixels).device.type == "cuda"
