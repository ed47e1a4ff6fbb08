"""Whether a folder can be written to: asked before the work, and told in one line."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# A full file system lets an empty file be made, and not one that holds something.
_BLOCK: Final = bytes(4096)
_WAYS_OUT: Final = {
    errno.EACCES: "let this user write there, or ",
    errno.EPERM: "let this user write there, or ",
    errno.ENOSPC: "make room there, or ",
    errno.EDQUOT: "make room there, or ",
}


def try_writing(folder: Path) -> None:
    """End in the error that writing into `folder` would end in; nothing is left behind.

    A folder that is not there is not made: the nearest one above it, where it would be made, is
    tried instead.

    Raises:
        OSError: Its `filename` is the folder that was tried.
    """
    place = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(_BLOCK)
            file.flush()
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror or str(exc), str(place.absolute())) from exc


def nearest(folder: Path) -> Path:
    """`folder` itself, or the nearest path above it that is there."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


@contextmanager
def explain_os_errors(
    error: type[Exception], doing: str, folder: Path, elsewhere: str, outcome: str = ""
) -> Iterator[None]:
    """Tell what the system refuses in the block as one line with the path and the way out.

    Args:
        error: What to raise.
        doing: What was being done, up to the name of the folder.
        folder: Where it was being done.
        elsewhere: How to have it done in another folder.
        outcome: What has become of it.
    """
    try:
        yield
    except OSError as exc:
        # Of two paths, as copying and renaming name, the second one is written.
        path = Path(exc.filename2 or exc.filename or folder)
        where = f"{folder}" if path in {folder, folder.absolute()} else f"{folder}: {path}"
        way_out = f"{_WAYS_OUT.get(exc.errno or 0, '')}{elsewhere}"
        raise error(f"{doing} {where}: {exc.strerror or exc}; {outcome}{way_out}") from exc
