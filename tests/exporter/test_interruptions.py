"""Exports that are killed, terminated, or run out of disk."""

import signal
import subprocess
from pathlib import Path

import pytest

from exporter.errors import ExportError
from tests.exporter.entries import export, files_below
from tests.stack import ROOT, VITRITON, run_python, run_vitriton_as_others


def test_killed_export_leaves_no_model_and_the_next_one_works(vit: Path, tmp_path: Path) -> None:
    """SIGKILL during the verification leaves the repository as it was."""
    repository = tmp_path / "models"
    staging = tmp_path / ".models.staging"
    process = subprocess.Popen(
        [*VITRITON, "export", str(vit), "--output", str(repository)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if "tracing" in line:
                break
        # The graph is saved; verifying it takes far longer than one look at the folder.
        while not list(staging.rglob("model.pt")):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert list(staging.rglob("model.pt"))
    assert list(repository.iterdir()) == []

    export(vit, repository)

    assert {"small-vit/config.pbtxt", "small-vit/1/model.pt"} <= files_below(repository).keys()
    assert not list(staging.rglob("model.pt"))


def test_full_disk_is_one_line_and_leaves_nothing(vit: Path, tmp_path: Path) -> None:
    """A limit on file sizes makes torch's writer fail as a full disk does."""
    program = (
        "import resource, sys; from deploy.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"main(['export', {str(vit)!r}, '--output', {str(tmp_path / 'models')!r}])"
    )

    done = run_python(["-c", program], ROOT)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot write to" in done.stderr.splitlines()[-1]
    assert list((tmp_path / "models").iterdir()) == []
    assert not list(tmp_path.rglob("model.pt"))


def test_terminated_export_removes_its_unfinished_files(vit: Path, tmp_path: Path) -> None:
    """SIGTERM during the verification: one line, exit code 130, an empty staging folder."""
    with subprocess.Popen(
        [*VITRITON, "export", str(vit), "--output", str(tmp_path / "models")],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while not list(tmp_path.rglob("model.pt")):
            assert process.poll() is None
        process.terminate()
        lines = process.stderr.read().splitlines()

    assert process.returncode == 130
    assert lines[-1] == "vitriton: interrupted"
    assert not list(tmp_path.rglob("model.pt"))


def test_failed_move_puts_the_old_model_back(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that cannot exchange folders, the second rename fails."""
    repository = tmp_path / "models"
    export(vit, repository)
    before = files_below(repository)
    monkeypatch.setattr("exporter.repository._exchange", lambda *_: False)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if "new" in self.parts and target.parent == repository:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ExportError, match="cannot write"):
        export(vit, repository)
    assert files_below(repository) == before

    monkeypatch.setattr(Path, "rename", rename)
    export(vit, repository)
    assert "small-vit/2/model.pt" in files_below(repository)


def test_repository_that_refuses_the_move_stays_as_it_was(vit: Path, tmp_path: Path) -> None:
    """The finished version cannot be moved into the repository."""
    repository = tmp_path / "models"
    export(vit, repository, max_batch_size=1)
    before = files_below(repository)
    repository.chmod(0o555)
    try:
        done = run_vitriton_as_others(["export", str(vit), "--output", str(repository)], tmp_path)
    finally:
        repository.chmod(0o755)

    assert done.returncode == 1
    assert "cannot write to" in done.stderr.splitlines()[-1]
    assert "Permission denied; nothing was changed" in done.stderr.splitlines()[-1]
    assert files_below(repository) == before
    assert not list((tmp_path / ".models.staging").rglob("model.pt"))
