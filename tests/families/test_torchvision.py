"""An export is the same with torchvision as without it; most machines have it."""

from pathlib import Path

import pytest

from tests.exporter.entries import files_below
from tests.families.checkpoints import save_family
from tests.stack import run_python, run_vitriton

pytestmark = pytest.mark.families


@pytest.mark.parametrize("family", ["DeiT with teacher", "Perceiver"])
def test_export_is_the_same_with_torchvision(
    tmp_path: Path, torchvision_site: Path, family: str
) -> None:
    """Every file is the same, although transformers itself would choose torchvision."""
    checkpoint = save_family(family, tmp_path / "checkpoint")
    with_it = {"PYTHONPATH": str(torchvision_site)}
    chosen = (
        "import sys, transformers as t; print(t.AutoImageProcessor.from_pretrained(sys.argv[1]))"
    )

    written = []
    for name, environment in (("without", {"PYTHONPATH": ""}), ("with", with_it)):
        arguments = ["export", str(checkpoint), "--output", name, "--max-batch-size", "2"]
        done = run_vitriton(arguments, tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        written.append(files_below(tmp_path / name))

    assert written[0] == written[1]
    processor = run_python(["-c", chosen, str(checkpoint)], tmp_path, **with_it).stdout
    assert "Processor " in processor
    assert "ProcessorPil " not in processor
