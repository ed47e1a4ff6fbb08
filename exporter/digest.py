"""Tell one checkpoint folder from another by what an export takes from it. Needs no torch."""

import hashlib
from pathlib import Path
from typing import Final

# transformers prefers the last one, which newer releases write, to the second.
CONFIG_FILES: Final = ["config.json", "preprocessor_config.json", "processor_config.json"]
WEIGHT_FILES: Final = ["*.safetensors", "model.safetensors.index.json"]
PICKLE_FILES: Final = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the files that make a model, hexadecimal."""
    patterns = CONFIG_FILES + WEIGHT_FILES + PICKLE_FILES
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    listing = "".join(f"{sha256_of(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()
