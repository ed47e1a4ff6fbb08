"""The temporary folder of `vitriton serve`, after one that was killed."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from deploy.local.work_folder import SHM, remove_abandoned, work_folder
from tests.local.test_lifecycle import regions_of
from tests.stack import STOP_TIMEOUT_S, Stack, run_vitriton, running_stack

DEMO = "vitriton/vit-digits"


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A folder for temporary ones that nothing else uses."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def start_another(temporary: Path) -> None:
    """A `serve` that ends at once; it begins as all do."""
    (temporary / "file").write_text("")
    done = run_vitriton(["serve", "./file", "--port", "0"], temporary, TMPDIR=str(temporary))
    (temporary / "file").unlink()
    assert "./file is a file" in done.stderr


def kill_all(stack: Stack) -> None:
    """At once, as the kernel or a container's end does: none can clear up for another."""
    processes = stack.processes()
    for process in processes:
        process.suspend()
    for process in processes:
        process.kill()
    assert stack.process.wait(STOP_TIMEOUT_S) == -signal.SIGKILL
    assert psutil.wait_procs(processes[1:], timeout=STOP_TIMEOUT_S)[1] == []


def test_next_serve_removes_what_a_killed_one_left(demo_repository: Path, temporary: Path) -> None:
    """Its folder and its shared memory; those of one that lives stay."""
    with running_stack([DEMO], demo_repository, temporary, TMPDIR=str(temporary)) as stack:
        start_another(temporary)
        (left,) = temporary.iterdir()
        assert stack.triton_log.is_file()
        assert regions_of(stack) != []

        kill_all(stack)
        assert list(temporary.iterdir()) == [left]
        assert regions_of(stack) != []
        start_another(temporary)

    assert list(temporary.iterdir()) == []
    assert regions_of(stack) == []


def test_stopped_serve_leaves_no_folder(demo_repository: Path, temporary: Path) -> None:
    """Not even for the next one to remove."""
    with running_stack([DEMO], demo_repository, temporary, TMPDIR=str(temporary)) as stack:
        assert stack.stop() == 0

    assert list(temporary.iterdir()) == []


@contextmanager
def named(folder: Path) -> Iterator[Path]:
    """Shared memory named after a folder, taken away at the end."""
    region = SHM / f"{folder.name}-region"
    region.write_text("")
    try:
        yield region
    finally:
        region.unlink(missing_ok=True)


def test_only_abandoned_folders_of_ours_are_removed(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither kept logs, nor a link to elsewhere, nor a folder whose lock is held."""
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    elsewhere = temporary / "elsewhere"
    abandoned = temporary / "vitriton-1-abcdefgh"
    kept = temporary / "vitriton-log-abcdefgh"
    link = temporary / "vitriton-2-abcdefgh"
    for folder in (elsewhere, abandoned, kept):
        folder.mkdir()
        (folder / "file").write_text("")
    link.symlink_to(elsewhere)

    with named(abandoned) as region, work_folder() as held, named(held) as its_region:
        remove_abandoned(temporary)
        assert set(temporary.iterdir()) == {elsewhere, kept, link, held}
        assert (elsewhere / "file").exists()
        assert (its_region.exists(), region.exists()) == (True, False)

    assert not held.exists()


def test_folder_that_is_taken_away_before_it_is_locked_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another `serve` may come between."""
    import fcntl

    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    lock = fcntl.flock
    taken: list[Path] = []

    def take_first(file: int, operation: int) -> None:
        lock(file, operation)
        if not taken:
            taken.extend(temporary.iterdir())
            shutil.rmtree(taken[0])

    monkeypatch.setattr("fcntl.flock", take_first)

    with work_folder() as work:
        assert work not in taken
        assert work.is_dir()
