"""Put finished models into a model repository, so that Triton never sees half of one.

Triton treats every folder in the repository as a model. So an export writes beside the repository,
into `.<repository>.staging` on the same file system, and renames the finished folder into it.
"""

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exporter.config_pbtxt import Profile
from exporter.errors import ExportError
from exporter.writable import explain_os_errors, nearest_existing, try_writing

log = logging.getLogger("exporter")

MODEL_FILE = "model.pt"
CONFIG_FILE = "config.pbtxt"
# Triton reads `configs/<name>.pbtxt` instead when it is started with `--model-config-name`.
CONFIGS_FOLDER = "configs"

# From Linux's <fcntl.h> and <stdio.h>.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@dataclass(frozen=True, slots=True)
class StagedModel:
    """A model that is being written outside the repository."""

    folder: Path
    version: int

    @property
    def model_file(self) -> Path:
        """Path of the new version's TorchScript."""
        return self.folder / str(self.version) / MODEL_FILE

    @property
    def config_files(self) -> dict[Profile, Path]:
        """Paths of the configuration and its variants."""
        return {
            "auto": self.folder / CONFIG_FILE,
            "cpu": self.folder / CONFIGS_FOLDER / "cpu.pbtxt",
            "gpu": self.folder / CONFIGS_FOLDER / "gpu.pbtxt",
            "gpu-jpeg": self.folder / CONFIGS_FOLDER / "gpu-jpeg.pbtxt",
        }


def versions_of(entry: Path) -> list[int]:
    """Numbers of the versions in a model's folder, ascending."""
    return sorted(int(p.name) for p in entry.glob("*") if p.is_dir() and p.name.isdecimal())


@contextlib.contextmanager
def stage_model(repository: Path, name: str, *, keeps_versions: bool) -> Iterator[StagedModel]:
    """Yield a folder for the next version of a model; move it into the repository at the end.

    Older versions stay if `keeps_versions`. After an exception in the block the repository is as it
    was before. Only one export at a time writes to a repository; others wait here.

    Raises:
        ExportError: The repository cannot be written to, or is the root of a file system.
    """
    staging = _staging_folder(repository)
    with _explain_os_errors(repository):
        repository.mkdir(parents=True, exist_ok=True)
        staging.mkdir(exist_ok=True)
        _refuse_volume(repository, staging)
        with _locked(staging / "lock"):
            _recover(staging, repository)
            new = staging / "new" / name
            old_versions = versions_of(repository / name)
            if keeps_versions:
                _link_versions(repository / name, new, old_versions)
            # The number grows even if older versions are removed: Triton notices a change by it.
            version = max(old_versions, default=0) + 1
            (new / str(version)).mkdir(parents=True)
            try:
                yield StagedModel(new, version)
                _sync(new)
                _move_in(staging, repository, name)
            finally:
                shutil.rmtree(staging / "new", ignore_errors=True)


def refuse_unwritable(repository: Path) -> None:
    """Refuse, before any work, a repository that `stage_model` could not write to.

    Nothing is written.

    Raises:
        ExportError: The error that `stage_model` would raise.
    """
    staging = _staging_folder(repository)
    with _explain_os_errors(repository):
        # This comes first, as the folder above a mounted volume often cannot be written to either.
        _refuse_volume(repository, staging)
        try_writing(repository)
        try_writing(staging)


def _staging_folder(repository: Path) -> Path:
    resolved = repository.resolve()
    return resolved.parent / f".{resolved.name}.staging"


def _refuse_volume(repository: Path, staging: Path) -> None:
    """Refuse a staging folder on another file system: a rename into the repository would fail."""
    if nearest_existing(staging).stat().st_dev != nearest_existing(repository).stat().st_dev:
        raise ExportError(
            f"{repository} is the root of a mounted volume, and models are finished beside the"
            f" repository; name a folder inside it, such as {repository / 'models'}"
        )


def _explain_os_errors(repository: Path) -> contextlib.AbstractContextManager[None]:
    return explain_os_errors(
        ExportError,
        "cannot write to",
        repository,
        "name another folder: `export --output DIR`, `serve --repository DIR`",
        "nothing was changed; ",
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another export is writing to this repository; waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _recover(staging: Path, repository: Path) -> None:
    """Undo what a killed export has left: remove its new model, move an old one back."""
    shutil.rmtree(staging / "new", ignore_errors=True)
    for old in (staging / "old").glob("*"):
        if not (repository / old.name).exists():
            old.rename(repository / old.name)
    shutil.rmtree(staging / "old", ignore_errors=True)


def _link_versions(current: Path, new: Path, versions: list[int]) -> None:
    for version in versions:
        shutil.copytree(current / str(version), new / str(version), copy_function=os.link)


def _sync(folder: Path) -> None:
    """Write the files to disk before the rename makes them visible."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _move_in(staging: Path, repository: Path, name: str) -> None:
    new, current = staging / "new" / name, repository / name
    if not current.exists():
        new.rename(current)
        return
    if _exchange(new, current):
        return
    # Some file systems, such as network ones, cannot exchange folders. Then the repository has no
    # such model for a moment; if the export is killed then, `_recover` moves the old model back.
    old = staging / "old"
    old.mkdir(exist_ok=True)
    current.rename(old / name)
    try:
        new.rename(current)
    except BaseException:
        # Broad: an interruption too must leave the earlier entry in its place.
        (old / name).rename(current)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; false if the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )
    if done == 0:
        return True
    error = ctypes.get_errno()
    if error in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:
        return False
    raise OSError(error, os.strerror(error), str(other))
