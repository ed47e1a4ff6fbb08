"""Checkpoints of timm, in transformers' wrapper: served without timm, with its answers."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporter.precision import Precision, cpu_has_bf16
from tests.families.figures import compare
from tests.pictures import PICTURES
from tests.stack import BIT_EQUAL, ROOT, running_stack

pytestmark = pytest.mark.families


@pytest.mark.parametrize(
    ("family", "architecture", "precision"),
    [
        ("timm ViT", "vit_tiny_patch16_224", "fp32"),
        ("timm ViT", "vit_tiny_patch16_224", "bf16"),
        ("timm ViT", "vit_tiny_patch16_224", "fp16"),
        ("timm ResNet", "resnet10t", "fp32"),
        ("timm ConvNeXt", "convnext_atto", "fp32"),
    ],
)
def test_timm_checkpoint_answers_as_transformers_does(
    timm_path: str,
    figures: list[dict[str, Any]],
    tmp_path: Path,
    family: str,
    architecture: str,
    precision: Precision,
) -> None:
    """With different crop percentages and sizes, and torchvision's rounding of odd crops."""
    if precision == "bf16" and not cpu_has_bf16():
        pytest.skip("this processor has no bfloat16 arithmetic")
    pictures = tmp_path / "pictures.json"
    pictures.write_text(
        json.dumps({name: base64.b64encode(data).decode() for name, data in PICTURES.items()})
    )
    program = [sys.executable, "-W", "ignore", "-m", "tests.families.timm_program"]
    subprocess.run(
        [*program, architecture, precision, str(tmp_path / "work"), str(pictures)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": timm_path},
        check=True,
        timeout=200,
    )
    wanted = json.loads((tmp_path / "work" / "expected.json").read_text())

    model_id = f"timm/{architecture}"
    repository = tmp_path / "work" / "models"
    with running_stack([model_id], repository, tmp_path, **BIT_EQUAL) as stack:
        figures.append(compare(stack.url, model_id, wanted, family, precision))
