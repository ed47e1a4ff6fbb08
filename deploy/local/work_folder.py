"""The temporary folder of a `vitriton serve`, which no later one leaves behind.

Its owner holds a lock on it, which the kernel releases however the owner ends; each owner first
removes the folders whose lock is free, with the shared memory that is named after them.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from deploy.local.errors import LocalError
from exporter.writable import explain_os_errors, try_writing

SHM: Final = Path("/dev/shm")  # noqa: S108 - where Triton's python backend keeps its regions

# Nobody else's: other temporary folders of ours have no number there.
_NAME: Final = re.compile(r"vitriton-\d+-\w{8}")
_ELSEWHERE: Final = "set TMPDIR to a folder on another file system"


def temporary_folder() -> Path:
    """The folder for temporary ones, by `TMPDIR`, in which Triton can run.

    Raises:
        LocalError: There is none, with the reason and the way out.
    """
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as exc:
        tried = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - named, not written to
        raise LocalError(
            f"no temporary folder can be written, {tried} neither; let this user write there,"
            f" make room there, or {_ELSEWHERE}"
        ) from exc
    with explain_temporary_errors(folder):
        try_writing(folder)
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            raise LocalError(
                f"{folder} is mounted noexec, and Triton runs a program from there; {_ELSEWHERE}"
            )
    return folder


def explain_temporary_errors(folder: Path) -> AbstractContextManager[None]:
    """Tell what the system refuses in the block as one line, a LocalError."""
    return explain_os_errors(LocalError, "cannot write temporary files to", folder, _ELSEWHERE)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder of our own for the length of the block.

    Raises:
        LocalError: It cannot be made.
    """
    parent = temporary_folder()
    remove_abandoned(parent)
    with explain_temporary_errors(parent):
        folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders whose owners were killed, and the shared memory they had."""
    for folder in parent.glob("vitriton-*"):
        if not _NAME.fullmatch(folder.name):
            continue
        # A link, another user's, one that has gone meanwhile, a lock that is held.
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_shared_memory(folder)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def shared_memory_prefix(work: Path) -> str:
    """What the names of shared memory begin with, of the Triton that works there."""
    return f"{work.name}-"


def remove_shared_memory(work: Path) -> None:
    """Remove what a killed Triton has left in `/dev/shm`."""
    for region in SHM.glob(f"{shared_memory_prefix(work)}*"):
        region.unlink(missing_ok=True)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"vitriton-{os.getpid()}-", dir=parent))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            # Another `vitriton serve` took it for an abandoned one before it was locked.
            continue
        # A file system without locks: others cannot lock it either, and leave it.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)
