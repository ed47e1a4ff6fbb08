"""The temporary folder of `vitriton serve`, also after a `serve` that was killed."""

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
    """A folder for temporary files that no other process uses."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def start_another(temporary: Path) -> None:
    """Start a `serve` that fails at once; like any other it first removes abandoned folders."""
    (temporary / "file").write_text("")
    done = run_vitriton(["serve", "./file", "--port", "0"], temporary, TMPDIR=str(temporary))
    (temporary / "file").unlink()
    assert "./file is a file" in done.stderr


def kill_all(stack: Stack) -> None:
    """Kill all processes at the same time, as when a container ends."""
    processes = stack.processes()
    for process in processes:
        process.suspend()
    for process in processes:
        process.kill()
    assert stack.process.wait(STOP_TIMEOUT_S) == -signal.SIGKILL
    assert psutil.wait_procs(processes[1:], timeout=STOP_TIMEOUT_S)[1] == []


def test_next_serve_removes_what_a_killed_one_left(demo_repository: Path, temporary: Path) -> None:
    """It removes its folder and its shared memory, but not those of a running `serve`."""
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
    """It removes the folder itself."""
    with running_stack([DEMO], demo_repository, temporary, TMPDIR=str(temporary)) as stack:
        assert stack.stop() == 0

    assert list(temporary.iterdir()) == []


@contextmanager
def shared_memory_of(folder: Path) -> Iterator[Path]:
    """Make shared memory named after a folder, and remove it at the end."""
    region = SHM / f"{folder.name}-region"
    region.write_text("")
    try:
        yield region
    finally:
        region.unlink(missing_ok=True)


def test_only_abandoned_folders_of_ours_are_removed(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept logs, links and folders whose lock is held stay."""
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    elsewhere = temporary / "elsewhere"
    abandoned = temporary / "vitriton-1-abcdefgh"
    kept = temporary / "vitriton-log-abcdefgh"
    link = temporary / "vitriton-2-abcdefgh"
    for folder in (elsewhere, abandoned, kept):
        folder.mkdir()
        (folder / "file").write_text("")
    link.symlink_to(elsewhere)

    with (
        shared_memory_of(abandoned) as region,
        work_folder() as held,
        shared_memory_of(held) as its_region,
    ):
        remove_abandoned(temporary)
        assert set(temporary.iterdir()) == {elsewhere, kept, link, held}
        assert (elsewhere / "file").exists()
        assert (its_region.exists(), region.exists()) == (True, False)

    assert not held.exists()


def test_folder_that_is_removed_before_it_is_locked_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another `serve` may remove it before."""
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
