"""Load a checkpoint: its trained weights, or its architecture with random ones.

Weights come from safetensors only, code from transformers only (`trust_remote_code` never).
Whatever the source, the model is loaded from a folder, so all three take one path.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
from transformers.utils import logging as transformers_logging

from exporter.diagnosis import reason_with_field
from exporter.digest import checkpoint_digest
from exporter.errors import ExportError, shortened
from exporter.folder import (
    CONFIG_FILE,
    PREPROCESSOR_FILES,
    CheckpointFiles,
    CheckpointFolder,
    is_file,
    read_checkpoint_files,
)
from exporter.processor_file import check_processor_file
from exporter.source import checkpoint_folder
from exporter.tensors import describe_mismatches, refuse_adapter_tensors, stored_dtype
from gateway.modelspec import ProblemType

# One fixed seed: the same architecture gives the same weights on every machine.
RANDOM_SEED: Final = 0

# A counter of batch normalisation that older checkpoints lack.
_UNUSED_AT_INFERENCE: Final = ".num_batches_tracked"
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model in memory, in evaluation mode, float32, on the CPU."""

    model: Any
    """A transformers model whose output has `logits`."""
    image_processor: Any
    """Its PIL image processor."""
    model_id: str
    """Hub id, preset or the folder's name."""
    revision: str | None
    """Commit on the hub."""
    hub_id: str | None
    """Id on the hub, where it came from there."""
    weights: Literal["checkpoint", "random"]
    stored_dtype: str | None
    """What its weights are stored in, such as `bf16`; none where they are random."""
    digest: str
    """See `exporter.digest`."""


def load_checkpoint(
    source: str, revision: str | None, random_weights: bool, allow_pickle: bool
) -> Checkpoint:
    """Load `source`: a folder if one of that name exists, else a preset, else a hub id.

    Raises:
        ExportError: It is not there, is not an image classifier, or lacks weights.
    """
    with checkpoint_folder(source, revision, random_weights, allow_pickle) as folder:
        files = read_checkpoint_files(folder, random_weights, allow_pickle)
        dtype = stored_dtype(source, files.weights)
        model = (
            _random_model(folder) if random_weights else _trained_model(folder, files, allow_pickle)
        )
        return Checkpoint(
            model=model.eval(),
            image_processor=_image_processor(folder),
            model_id=folder.model_id,
            revision=folder.commit,
            hub_id=source if folder.commit else None,
            weights="random" if random_weights else "checkpoint",
            stored_dtype=dtype,
            digest=checkpoint_digest(folder.path),
        )


def _trained_model(folder: CheckpointFolder, files: CheckpointFiles, allow_pickle: bool) -> Any:
    if files.config.get("quantization_config"):
        raise ExportError(
            f"{folder.source} has quantized weights (quantization_config in {CONFIG_FILE}); export"
            " the checkpoint that they were made from"
        )
    try:
        model, report = AutoModelForImageClassification.from_pretrained(
            folder.path,
            # With pickles allowed safetensors are still preferred; either way nothing in a
            # pickle but tensors is loaded.
            use_safetensors=None if allow_pickle else True,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            # Then the tensors that do not fit are in the report, and not in the log alone.
            ignore_mismatched_sizes=True,
        )
    except Exception as exc:
        # Broad: for a damaged file transformers raises anything, as torch and safetensors do.
        reason = reason_with_field(exc, folder.path, CONFIG_FILE, _read_architecture)
        raise ExportError(f"{folder.source} cannot be loaded: {reason}") from exc
    _refuse_other_weights(folder.source, report)
    return model


def _refuse_other_weights(source: str, report: dict[str, Any]) -> None:
    """Refuse what transformers only warns of: it fills gaps with random numbers."""
    refuse_adapter_tensors(source, report["unexpected_keys"])
    if report["mismatched_keys"]:
        raise ExportError(
            f"{source} has weights of another shape than {CONFIG_FILE} says:"
            f" {describe_mismatches(report['mismatched_keys'])}; restore the {CONFIG_FILE} that"
            " was saved with the weights"
        )
    missing = sorted(k for k in report["missing_keys"] if not k.endswith(_UNUSED_AT_INFERENCE))
    if missing:
        raise ExportError(
            f"{source} has no weights for {missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; it is not a finished"
            " image classifier"
        )


def _random_model(folder: CheckpointFolder) -> Any:
    try:
        config = _read_config(folder.path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return _model_class(config)._from_config(config, dtype=torch.float32)
    except Exception as exc:
        # Broad: for a wrong field transformers raises anything, where it first uses the field.
        reason = reason_with_field(exc, folder.path, CONFIG_FILE, _read_architecture)
        raise ExportError(f"{folder.source} is no image classifier: {reason}") from exc


def _read_config(folder: Path) -> Any:
    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _read_architecture(folder: Path) -> None:
    """Build the model of a folder's config, without memory for its weights."""
    config = _read_config(folder)
    with torch.device("meta"):
        _model_class(config)(config)


def _model_class(config: Any) -> Any:
    """The class `from_pretrained` would take: that of `architectures`, if it is a known one."""
    candidates = AutoModelForImageClassification._model_mapping[type(config)]
    if not isinstance(candidates, tuple | list):
        return candidates
    by_name = {candidate.__name__: candidate for candidate in candidates}
    return next((by_name[a] for a in config.architectures or () if a in by_name), candidates[0])


def _image_processor(folder: CheckpointFolder) -> Any:
    check_processor_file(folder.path, folder.source)
    try:
        return _read_processor(folder.path)
    except Exception as exc:
        # Broad: for a wrong field transformers raises anything, where it first uses the field.
        present = [name for name in PREPROCESSOR_FILES if is_file(folder.path / name)]
        named = present[-1] if present else CONFIG_FILE
        reason = reason_with_field(exc, folder.path, named, _read_processor)
        raise ExportError(f"{folder.source} has no usable image processor: {reason}") from exc


def _read_processor(folder: Path) -> Any:
    return AutoImageProcessor.from_pretrained(
        folder, backend="pil", local_files_only=True, trust_remote_code=False
    )


def read_problem_type(config: Any) -> ProblemType | None:
    """What the labels mean to each other.

    Raises:
        ExportError: It is none that transformers knows.
    """
    problem_type = config.problem_type
    if problem_type is not None and problem_type not in get_args(ProblemType):
        raise ExportError(f"the config's problem_type {shortened(repr(problem_type))} is unknown")
    return cast(ProblemType | None, problem_type)


def read_labels(config: Any, num_labels: int) -> tuple[str, ...]:
    """Label of each logit, by id, as text that every JSON reader takes.

    Fine-tunes may have integer labels, or some that were cut inside a character: a lone surrogate,
    which has no UTF-8, becomes U+FFFD.

    Raises:
        ExportError: The config names more labels than there are logits.
    """
    id2label = {
        int(i): _LONE_SURROGATE.sub("\ufffd", str(label))
        for i, label in (config.id2label or {}).items()
    }
    if id2label and max(id2label) >= num_labels:
        raise ExportError(
            f"id2label names label {max(id2label)}, but the model has only {num_labels} logits"
        )
    return tuple(id2label.get(i, f"LABEL_{i}") for i in range(num_labels))


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hold back transformers' advice; what matters of it is checked and said by us."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
        transformers_logging.set_verbosity(level)
