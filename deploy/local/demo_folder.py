"""The folder of the demo model: whether it holds the trained demo, and whether it can be written.

Needs no torch.
"""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from deploy.local.errors import LocalError
from exporter.writable import explain_os_errors, try_writing

DEMO_MODEL: Final = "vitriton/vit-digits"
DEMO_FOLDER: Final = Path("demo")
"""Relative to the folder that the command runs in."""

RECIPE_FILE: Final = "recipe.sha256"
_RECIPE_SOURCES: Final = ("demo.py", "digits.py")


def checkpoint_of(folder: Path) -> Path:
    """Folder of the demo's checkpoint, which exists once the demo is trained."""
    return folder / "checkpoint"


def recipe() -> str:
    """Hash of the code that draws the pictures and trains: other code makes another model."""
    sources = [Path(__file__).with_name(name) for name in _RECIPE_SOURCES]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def is_trained(folder: Path) -> bool:
    """Whether the folder holds a demo that this version of the code has trained."""
    made_by = checkpoint_of(folder) / RECIPE_FILE
    return made_by.is_file() and made_by.read_bytes() == recipe().encode()


def refuse_unwritable_demo(folder: Path) -> None:
    """Refuse, before any work, a folder that lacks the demo and cannot be written to.

    Raises:
        LocalError: With the path and the way out.
    """
    with explain_demo_errors(folder):
        if not is_trained(folder):
            try_writing(folder)


def explain_demo_errors(folder: Path) -> AbstractContextManager[None]:
    """Turn an OSError of the block into a LocalError, one line with the way out."""
    return explain_os_errors(
        LocalError,
        "the demo cannot be kept in",
        folder,
        "run this in another folder, or name a MODEL of yours",
    )
