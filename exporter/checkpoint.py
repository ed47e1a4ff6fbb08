"""Load a checkpoint: its trained weights, or its architecture with random ones.

Weights come from safetensors unless pickles are allowed; code comes only from transformers
(`trust_remote_code` is never set). A folder, a preset and a hub model all become a folder first,
which is then loaded in the same way.
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

# A counter of batch normalisation, which older checkpoints lack and inference does not use.
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
    """Commit on the hub; none if the checkpoint is not from the hub."""
    hub_id: str | None
    """Id on the hub; none if the checkpoint is not from the hub."""
    weights: Literal["checkpoint", "random"]
    stored_dtype: str | None
    """Precision of the stored weights, such as `bf16`; none if the weights are random."""
    digest: str
    """The folder's `exporter.digest.checkpoint_digest`."""


def load_checkpoint(
    source: str, revision: str | None, random_weights: bool, allow_pickle: bool
) -> Checkpoint:
    """Load `source`: a folder if one of that name exists, else a preset, else a hub id.

    Raises:
        ExportError: There is no such checkpoint, it is no image classifier, or it lacks weights.
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
            # Even where pickles are allowed, transformers prefers safetensors. From a pickle it
            # loads nothing but tensors.
            use_safetensors=None if allow_pickle else True,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            # With this option the report lists the tensors that do not fit; otherwise only the log
            # does.
            ignore_mismatched_sizes=True,
        )
    except Exception as exc:
        # Broad: for a damaged file transformers raises anything, as torch and safetensors do.
        reason = reason_with_field(exc, folder.path, CONFIG_FILE, _read_architecture)
        raise ExportError(f"{folder.source} cannot be loaded: {reason}") from exc
    _refuse_other_weights(folder.source, report)
    return model


def _refuse_other_weights(source: str, report: dict[str, Any]) -> None:
    """Refuse missing or wrong tensors: transformers only warns, and fills them with random ones."""
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
    """The class that `from_pretrained` would choose: the config's own, if transformers knows it."""
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
    """Whether exactly one label is right, several are, or the model is a regression.

    Raises:
        ExportError: transformers does not know the config's value.
    """
    problem_type = config.problem_type
    if problem_type is not None and problem_type not in get_args(ProblemType):
        raise ExportError(f"the config's problem_type {shortened(repr(problem_type))} is unknown")
    return cast(ProblemType | None, problem_type)


def read_labels(config: Any, num_labels: int) -> tuple[str, ...]:
    """Label of each logit, by id, as text that every JSON reader accepts.

    Labels of fine-tuned models may be integers, or text that was cut inside a character. That
    leaves a lone surrogate, which UTF-8 cannot encode; it becomes U+FFFD.

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
    """Silence transformers during the block; the exporter checks what matters itself."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
        transformers_logging.set_verbosity(level)
