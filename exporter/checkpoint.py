"""Find and load a checkpoint: a hub id, a local folder, or an architecture with random weights.

Weights come from safetensors only, code from transformers only (`trust_remote_code` never).
Whatever the source, the model is loaded from a folder, so all three take one path.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final, Literal, cast, get_args

import torch
from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
from transformers.utils import logging as transformers_logging

from exporter.digest import CONFIG_FILES, PICKLE_FILES, WEIGHT_FILES, checkpoint_digest
from exporter.errors import ExportError, first_line
from exporter.presets import PRESETS
from exporter.source import refuse_file
from gateway.modelspec import ProblemType, is_model_id

# One fixed seed: the same architecture gives the same weights on every machine.
RANDOM_SEED: Final = 0


# What transformers raises for a damaged or unknown checkpoint depends on how far it got.
_LOAD_ERRORS: Final = (
    *(OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError),
    StrictDataclassError,
)
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
    digest: str
    """See `exporter.digest`."""


def load_checkpoint(
    source: str, revision: str | None, random_weights: bool, allow_pickle: bool
) -> Checkpoint:
    """Load `source`: a folder if one of that name exists, else a preset, else a hub id.

    Raises:
        ExportError: It is not there, is not an image classifier, or lacks weights.
    """
    weights: Literal["checkpoint", "random"] = "random" if random_weights else "checkpoint"
    files = CONFIG_FILES + ([] if random_weights else WEIGHT_FILES)
    if allow_pickle and not random_weights:
        files = files + PICKLE_FILES
    with _folder_of(source, revision, random_weights, files) as (folder, commit):
        model = _random_model(folder) if random_weights else _trained_model(folder, allow_pickle)
        processor = _image_processor(folder)
        name = Path(source).resolve().name if Path(source).is_dir() else source
        digest = checkpoint_digest(folder)
    hub_id = source if commit else None
    return Checkpoint(model.eval(), processor, name, commit, hub_id, weights, digest)


@contextmanager
def _folder_of(
    source: str, revision: str | None, random_weights: bool, files: list[str]
) -> Iterator[tuple[Path, str | None]]:
    path = Path(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ExportError(
                f"{source} is no checkpoint: it holds no config.json; name the folder that"
                " `save_pretrained` wrote"
            )
        yield path, None
    elif random_weights and source in PRESETS:
        with tempfile.TemporaryDirectory(prefix="vitriton-preset-") as folder:
            preset = PRESETS[source]
            contents = {
                "config.json": preset.config,
                "preprocessor_config.json": preset.preprocessor,
            }
            for name, content in contents.items():
                (Path(folder) / name).write_text(json.dumps(content))
            yield Path(folder), None
    elif path.exists() or source.startswith((".", "/", "~")) or not is_model_id(source):
        refuse_file(source)
        raise ExportError(
            f"{source} is neither a checkpoint folder nor a hub id such as"
            " google/vit-base-patch16-224"
        )
    else:
        yield _download(source, revision, files)


def _download(model_id: str, revision: str | None, files: list[str]) -> tuple[Path, str]:
    """Folder and commit of the hub's files, from the hub's own cache when they are there."""
    try:
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError) as exc:
        raise ExportError(f"{model_id} {_why_not_downloaded(exc, revision)}") from exc
    except HFValidationError as exc:
        raise ExportError(f"{model_id!r} is no hub id: {first_line(exc)}") from exc
    except (OSError, HTTPError) as exc:
        raise ExportError(
            f"{model_id} could not be downloaded: {first_line(exc)}; try again, what has arrived"
            " is kept"
        ) from exc
    # The cache's layout is `snapshots/<commit>`.
    return folder, folder.name


def _why_not_downloaded(
    error: HfHubHTTPError | LocalEntryNotFoundError, revision: str | None
) -> str:
    # What the hub answered is lost from the error's surface where the cache was tried in vain.
    response = getattr(error, "response", None)
    if response is None:
        response = getattr(error.__cause__, "response", None)
    if response is None:
        return (
            "is not in the hub's cache and the hub does not answer; name a local checkpoint folder,"
            f" or add `--init random` with one of {', '.join(PRESETS)}"
        )
    return {
        401: "does not exist, or is private or gated: set HF_TOKEN",
        403: "is gated: ask for access on its page and set HF_TOKEN",
        404: f"does not exist on the hub{f' at revision {revision}' if revision else ''}",
    }.get(response.status_code, f"could not be read: the hub answered {response.status_code}")


def _trained_model(folder: Path, allow_pickle: bool) -> Any:
    if not allow_pickle and not any(folder.glob("*.safetensors")):
        if any(folder.glob("*.bin")):
            raise ExportError(
                f"{folder} has pickled weights only; add --allow-pickle if you trust their source"
            )
        raise ExportError(f"{folder} has no weights: no *.safetensors file is in it")
    try:
        model, report = AutoModelForImageClassification.from_pretrained(
            folder,
            # With pickles allowed safetensors are still preferred; either way nothing in a
            # pickle but tensors is loaded.
            use_safetensors=None if allow_pickle else True,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except UnpicklingError as exc:
        raise ExportError(
            f"{folder} cannot be loaded: its pickle holds more than tensors, which is never run"
        ) from exc
    except ImportError as exc:
        raise ExportError(_missing_library(folder, exc)) from exc
    except (*_LOAD_ERRORS, SafetensorError) as exc:
        raise ExportError(f"{folder} cannot be loaded: {first_line(exc)}") from exc
    # transformers only warns and fills what is missing with random numbers.
    missing = sorted(k for k in report["missing_keys"] if not k.endswith(_UNUSED_AT_INFERENCE))
    if missing:
        raise ExportError(
            f"{folder} has no weights for {missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; it is not a finished"
            " image classifier"
        )
    return model


def _random_model(folder: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return _model_class(config)._from_config(config, dtype=torch.float32)
    except ImportError as exc:
        raise ExportError(_missing_library(folder, exc)) from exc
    except _LOAD_ERRORS as exc:
        raise ExportError(f"{folder} is no image classifier: {first_line(exc)}") from exc


def _missing_library(folder: Path, exc: ImportError) -> str:
    return f"{folder} needs a library that is not installed: {first_line(exc)}"


def _model_class(config: Any) -> Any:
    """The class `from_pretrained` would take: that of `architectures`, if it is a known one."""
    candidates = AutoModelForImageClassification._model_mapping[type(config)]
    if not isinstance(candidates, tuple | list):
        return candidates
    by_name = {candidate.__name__: candidate for candidate in candidates}
    return next((by_name[a] for a in config.architectures or () if a in by_name), candidates[0])


def _image_processor(folder: Path) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    except (ImportError, *_LOAD_ERRORS) as exc:
        raise ExportError(
            f"{folder} has no usable preprocessor_config.json: {first_line(exc)}"
        ) from exc


def read_problem_type(config: Any) -> ProblemType | None:
    """What the labels mean to each other.

    Raises:
        ExportError: It is none that transformers knows.
    """
    problem_type = config.problem_type
    if problem_type is not None and problem_type not in get_args(ProblemType):
        raise ExportError(f"the config's problem_type {problem_type!r} is unknown")
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
