"""`vitriton export --check` compares an entry with its checkpoint."""

import shutil
from pathlib import Path

import pytest

from exporter.check import check_entry
from exporter.entry import read_entry
from exporter.errors import ExportError
from tests.checkpoints import save_vit
from tests.exporter.entries import edit, export, files_below
from tests.stack import run_vitriton


def test_check_accepts_an_entry_and_its_checkpoint(vit: Path, tmp_path: Path) -> None:
    """Nothing is written; the log has the figures of the comparison."""
    export(vit, tmp_path / "models")
    before = files_below(tmp_path)

    done = run_vitriton(
        ["export", str(vit), "--check", str(tmp_path / "models" / "small-vit")], tmp_path
    )

    assert done.returncode == 0, done.stderr
    assert "is what its checkpoint says: max |Δlogit|" in done.stderr
    assert files_below(tmp_path) == before


def test_check_finds_what_changed(vit: Path, broken: Path, tmp_path: Path) -> None:
    """A damaged graph, another checkpoint, another label, another preprocessing."""
    entry = tmp_path / "models" / "small-vit"
    export(vit, tmp_path / "models")
    other = save_vit(tmp_path / "other", initializer_range=0.3)
    relabelled = shutil.copytree(vit, tmp_path / "relabelled")
    edit(relabelled / "config.json", id2label={str(i): f"x{i}" for i in range(12)})
    edit(broken / "preprocessor_config.json", resample=3)

    cases = [(other, "differs"), (relabelled, "other labels"), (broken, "another preprocessing")]
    for checkpoint, says in cases:
        with pytest.raises(ExportError, match=says):
            check_entry(entry, str(checkpoint), allow_pickle=False)
    with pytest.raises(ExportError, match="name its checkpoint"):
        check_entry(entry, None, allow_pickle=False)
    model_file = entry / "1" / "model.pt"
    model_file.write_bytes(model_file.read_bytes() + b"x")
    with pytest.raises(ExportError, match="sha256 differs"):
        check_entry(entry, str(vit), allow_pickle=False)


def test_check_finds_another_problem_type(vit: Path, broken: Path, tmp_path: Path) -> None:
    """The problem type decides the activation, so the answers would differ."""
    export(vit, tmp_path / "models")
    edit(broken / "config.json", problem_type="multi_label_classification")

    with pytest.raises(ExportError, match="another problem_type"):
        check_entry(tmp_path / "models" / "small-vit", str(broken), allow_pickle=False)


@pytest.mark.parametrize(
    ("variant", "change", "says"),
    [
        ("configs/cpu.pbtxt", ("étiquette 0", "other"), "contradicts"),
        ("configs/gpu.pbtxt", ("max_batch_size: 4", "max_batch_size: 5"), "contradicts"),
        ("config.pbtxt", ("dims: 224", "dims: 200"), "another input"),
        ("config.pbtxt", ("name:", "nome:"), "cannot be read"),
    ],
)
def test_configurations_that_disagree_are_found(
    vit: Path, tmp_path: Path, variant: str, change: tuple[str, str], says: str
) -> None:
    """Triton reads only one of the three files; all of them are checked."""
    export(vit, tmp_path / "models")
    entry = tmp_path / "models" / "small-vit"
    file = entry / variant
    # The text holds letters beyond ASCII unescaped.
    file.write_text(file.read_text(encoding="utf-8").replace(*change), encoding="utf-8")

    with pytest.raises(ExportError, match=says):
        read_entry(entry)


def test_graph_that_cannot_be_read_is_one_line(vit: Path, tmp_path: Path) -> None:
    """The file is the process's own memory, whose first byte not even root can read."""
    export(vit, tmp_path / "models", max_batch_size=1)
    model_file = tmp_path / "models" / "small-vit" / "1" / "model.pt"
    model_file.unlink()
    model_file.symlink_to("/proc/self/mem")

    with pytest.raises(ExportError, match=r"model\.pt cannot be read: Input/output error"):
        check_entry(tmp_path / "models" / "small-vit", str(vit), allow_pickle=False)
