"""The folder of the demo model: whether it is made, and whether it can be. Needs no torch."""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from deploy.local.errors import LocalError
from exporter.writable import explain_os_errors, try_writing

DEMO_MODEL: Final = "vitriton/vit-digits"
DEMO_FOLDER: Final = Path("demo")
"""Of the folder that the command runs in."""

RECIPE_FILE: Final = "recipe.sha256"
_RECIPE_SOURCES: Final = ("demo.py", "digits.py")


def checkpoint_of(folder: Path) -> Path:
    """Where the demo's checkpoint is, once it is made."""
    return folder / "checkpoint"


def recipe() -> str:
    """Hash of the code that draws and trains: another recipe is another model."""
    sources = [Path(__file__).with_name(name) for name in _RECIPE_SOURCES]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def is_trained(folder: Path) -> bool:
    """Whether the folder holds the demo as this version makes it."""
    made_by = checkpoint_of(folder) / RECIPE_FILE
    return made_by.is_file() and made_by.read_bytes() == recipe().encode()


def refuse_unwritable_demo(folder: Path) -> None:
    """Refuse, before any work, a folder in which the demo is not and cannot be made.

    Raises:
        LocalError: With the path and the way out.
    """
    with explain_demo_errors(folder):
        if not is_trained(folder):
            try_writing(folder)


def explain_demo_errors(folder: Path) -> AbstractContextManager[None]:
    """Tell what the system refuses in the block as one line, a LocalError."""
    return explain_os_errors(
        LocalError,
        "the demo cannot be kept in",
        folder,
        "run this in another folder, or name a MODEL of yours",
    )
