"""Every failure of the hub is one clear line, and writes nothing."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub import COMMIT, MODEL, Handler, hub, hub_environment
from tests.stack import run_vitriton


def export_from(endpoint: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_vitriton(
        ["export", MODEL, "--max-batch-size", "1", *arguments],
        folder,
        **hub_environment(endpoint, folder),
    )


def test_model_is_downloaded_and_exported_with_its_commit(vit: Path, tmp_path: Path) -> None:
    """The contract has the hub's id and commit, so `--check` needs no checkpoint."""
    with hub(vit) as endpoint:
        done = export_from(endpoint, tmp_path, "--name", "me/renamed")
        assert done.returncode == 0, done.stderr
        entry = tmp_path / "model_repository" / "me--renamed"
        checked = run_vitriton(
            ["export", "--check", str(entry)], tmp_path, **hub_environment(endpoint, tmp_path)
        )

    assert COMMIT in (entry / "config.pbtxt").read_text()
    assert checked.returncode == 0, checked.stderr
    assert "is what its checkpoint says" in checked.stderr


def gated(handler: Handler) -> bool:
    handler.fail(403, "GatedRepo")
    return True


def missing(handler: Handler) -> bool:
    handler.fail(404, "RepoNotFound")
    return True


def unauthorized(handler: Handler) -> bool:
    handler.fail(401, "RepoNotFound")
    return True


def unknown_revision(handler: Handler) -> bool:
    handler.fail(404, "RevisionNotFound")
    return True


def out_of_order(handler: Handler) -> bool:
    handler.fail(500)
    return True


def broken_off(handler: Handler) -> bool:
    """The hub closes the connection in the middle of the weights."""
    if handler.command != "GET" or not handler.path.endswith(".safetensors"):
        return False
    body = (handler.server.folder / "model.safetensors").read_bytes()
    handler.send(body, len(body) // 2)
    handler.close_connection = True
    return True


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (gated, "is gated: ask for access on its page and set HF_TOKEN"),
        (missing, "does not exist on the hub"),
        (unauthorized, "private or gated: set HF_TOKEN"),
        (unknown_revision, "does not exist on the hub"),
        (out_of_order, "could not be read: the hub answered 500"),
        (broken_off, "could not be downloaded"),
    ],
)
def test_fault_of_the_hub_is_one_line(
    vit: Path, tmp_path: Path, fault: Callable[[Handler], bool], says: str
) -> None:
    """The line has the way out; exit code 1; no repository is made."""
    with hub(vit, fault) as endpoint:
        done = export_from(endpoint, tmp_path)

    errors = [line for line in done.stderr.splitlines() if line.startswith("vitriton: error: ")]
    assert done.returncode == 1
    assert len(errors) == 1, done.stderr
    assert says in errors[0]
    assert MODEL in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model_repository").exists()


def test_download_that_broke_off_is_finished_the_next_time(vit: Path, tmp_path: Path) -> None:
    """A file that arrived in part is not used as a whole one."""
    with hub(vit, broken_off) as endpoint:
        assert export_from(endpoint, tmp_path).returncode == 1
    with hub(vit) as endpoint:
        done = export_from(endpoint, tmp_path)

    assert done.returncode == 0, done.stderr


def test_either_file_of_the_preprocessor_is_downloaded(broken: Path, tmp_path: Path) -> None:
    """Newer checkpoints have `processor_config.json`, which transformers reads first."""
    preprocessor = broken / "preprocessor_config.json"
    settings = json.loads(preprocessor.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}
    (broken / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    preprocessor.unlink()
    with hub(broken) as endpoint:
        done = export_from(endpoint, tmp_path, "--name", "me/newer")
        assert done.returncode == 0, done.stderr
        entry = tmp_path / "model_repository" / "me--newer"
        settings["image_mean"] = [0.5, 0.5, 0.5]
        (broken / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
        checked = run_vitriton(["export", "--check", str(entry), str(broken)], tmp_path)

    assert checked.returncode == 1
    assert "differs from eager transformers" in checked.stderr
