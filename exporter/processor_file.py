"""Refuse a checkpoint whose image processor is missing or cannot be reproduced.

Reads the checkpoint's files, and never runs code that they name.
"""

import json
import os
from pathlib import Path
from typing import Final

from transformers.models.auto.image_processing_auto import (
    IMAGE_PROCESSOR_MAPPING_NAMES,
    get_image_processor_config,
)
from transformers.utils import is_timm_local_checkpoint

from exporter.errors import ExportError
from exporter.folder import PREPROCESSOR_FILE, PREPROCESSOR_FILES, fault_of, is_file

_WITHOUT_PILLOW: Final = frozenset(
    names["torchvision"] for names in IMAGE_PROCESSOR_MAPPING_NAMES.values() if "pil" not in names
)


def check_processor_file(folder: Path, source: str) -> None:
    """Refuse a checkpoint folder whose image processor is missing or needs torchvision.

    Args:
        folder: Where the checkpoint is.
        source: What the user calls the checkpoint.

    Raises:
        ExportError: Says what is wrong and the way out.
    """
    # timm's models have their preprocessing in config.json.
    if is_timm_local_checkpoint(str(folder)):
        return
    try:
        settings = get_image_processor_config(folder, local_files_only=True)
    except (OSError, ValueError, TypeError):
        # Loading the processor fails for the same reason, with a better error.
        return
    if not isinstance(settings, dict):
        return
    if not settings and not _has_settings(folder):
        raise _without_settings(folder, source)
    # Older files name the class with "Fast" at the end.
    name = str(settings.get("image_processor_type")).removesuffix("Fast")
    if name in _WITHOUT_PILLOW:
        raise without_pillow(name)


def _has_settings(folder: Path) -> bool:
    """Whether one of the files holds settings of an image processor, even empty ones."""
    own, shared = (folder / name for name in PREPROCESSOR_FILES)
    if is_file(own):
        return True
    # `processor_config.json` may hold only the settings of a tokenizer.
    return is_file(shared) and "image_processor" in json.loads(shared.read_text(encoding="utf-8"))


def _without_settings(folder: Path, source: str) -> ExportError:
    """The error for missing settings: the fault of the file that is there, or how to get one."""
    for name in PREPROCESSOR_FILES:
        path = folder / name
        fault = fault_of(path) if os.path.lexists(path) else None
        if fault is not None:
            return ExportError(f"{source} cannot be loaded: {name} {fault}")
    return ExportError(
        f"{source} has no {PREPROCESSOR_FILE}, which says how images are resized and normalised;"
        " copy it from the model this one was fine-tuned from, or write it with"
        " image_processor.save_pretrained"
    )


def without_pillow(name: str) -> ExportError:
    """The error for an image processor that transformers implements only with torchvision."""
    return ExportError(
        f"transformers has {name} only for torchvision, which resizes differently from the gateway,"
        " which uses Pillow; models of this kind cannot be exported"
    )
