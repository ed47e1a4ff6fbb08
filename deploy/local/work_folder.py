"""The temporary folder of `vitriton serve`, and the removal of those that were left behind.

A running `serve` holds a lock on its folder, and the kernel releases it however the process ends.
Each `serve` first removes the folders whose lock is free, with the shared memory named after them.
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

# Other temporary folders of this project have no number in their names.
_NAME: Final = re.compile(r"vitriton-\d+-\w{8}")
_ELSEWHERE: Final = "set TMPDIR to a folder on another file system"


def temporary_folder() -> Path:
    """The system's folder for temporary files, chosen by `TMPDIR`.

    Raises:
        LocalError: It cannot be written to, or programs cannot be run from it.
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
    """Turn an OSError of the block into a LocalError, one line with the way out."""
    return explain_os_errors(LocalError, "cannot write temporary files to", folder, _ELSEWHERE)


@contextmanager
def work_folder() -> Iterator[Path]:
    """Yield a locked temporary folder, and remove it at the end of the block.

    Raises:
        LocalError: The folder cannot be made.
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
    """Remove the folders of killed processes, and the shared memory named after them."""
    for folder in parent.glob("vitriton-*"):
        if not _NAME.fullmatch(folder.name):
            continue
        # An OSError means: a link, another user's folder, a removed folder, or a lock that is held.
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
    """Prefix of the shared memory names of the Triton that runs in the folder `work`."""
    return f"{work.name}-"


def remove_shared_memory(work: Path) -> None:
    """Remove the shared memory that a killed Triton has left in `/dev/shm`."""
    for region in SHM.glob(f"{shared_memory_prefix(work)}*"):
        region.unlink(missing_ok=True)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"vitriton-{os.getpid()}-", dir=parent))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            # Another `vitriton serve` removed the folder as abandoned before it was locked.
            continue
        # On a file system without locks no other process can lock the folder, so none removes it.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)
