"""Check before the work whether a folder can be written to, and explain in one line if not."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# On a full file system an empty file can be created, so the trial writes this much.
_BLOCK: Final = bytes(4096)
_WAYS_OUT: Final = {
    errno.EACCES: "let this user write there, or ",
    errno.EPERM: "let this user write there, or ",
    errno.ENOSPC: "make room there, or ",
    errno.EDQUOT: "make room there, or ",
}


def try_writing(folder: Path) -> None:
    """Write and remove a file in `folder`, or in the nearest existing folder above it.

    Raises:
        OSError: The system refuses; `filename` is the folder that was tried.
    """
    place = nearest_existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(_BLOCK)
            file.flush()
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror or str(exc), str(place.absolute())) from exc


def nearest_existing(folder: Path) -> Path:
    """`folder` itself, or the nearest path above it that exists."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


@contextmanager
def explain_os_errors(
    error: type[Exception], doing: str, folder: Path, elsewhere: str, outcome: str = ""
) -> Iterator[None]:
    """Turn an OSError of the block into `error`, one line with the path and the way out.

    Args:
        error: The class of the exception to raise.
        doing: What failed, up to the name of the folder: "cannot write to".
        folder: The folder that the block writes to.
        elsewhere: How to choose another folder.
        outcome: What state things are in now: "nothing was changed; ".
    """
    try:
        yield
    except OSError as exc:
        # An error of copying or renaming has two paths, of which the second one is written.
        path = Path(exc.filename2 or exc.filename or folder)
        where = f"{folder}" if path in {folder, folder.absolute()} else f"{folder}: {path}"
        way_out = f"{_WAYS_OUT.get(exc.errno or 0, '')}{elsewhere}"
        raise error(f"{doing} {where}: {exc.strerror or exc}; {outcome}{way_out}") from exc
