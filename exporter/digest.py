"""Hash the files of a checkpoint folder that an export reads. Needs no torch."""

import hashlib
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from exporter.folder import ADAPTER_FILES, CONFIG_FILE, PREPROCESSOR_FILES, is_file

CONFIG_FILES: Final = [CONFIG_FILE, *PREPROCESSOR_FILES]
WEIGHT_FILES: Final = ["*.safetensors", "model.safetensors.index.json", *ADAPTER_FILES]
PICKLE_FILES: Final = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the files that make a model, hexadecimal.

    Files of adapters count too: an adapter that is added after an export makes another checkpoint.
    """
    patterns = CONFIG_FILES + WEIGHT_FILES + PICKLE_FILES
    # Not `Path.glob`, which raises on a link to a name that is too long.
    paths = sorted(p for p in folder.iterdir() if any(fnmatchcase(p.name, x) for x in patterns))
    listing = b"".join(_line(path) for path in paths if is_file(path))
    return hashlib.sha256(listing).hexdigest()


def _line(path: Path) -> bytes:
    try:
        content = sha256_of(path)
    except OSError:
        # If the model needs this file, its export has failed before this line.
        content = "unreadable"
    return f"{content}  ".encode() + os.fsencode(path.name) + b"\n"
