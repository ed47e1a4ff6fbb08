"""Find the files of a checkpoint folder that make the model, and what is wrong with them.

The files are checked before transformers reads them: it would wait for ever on a named pipe, and
its errors rarely name the file. Needs no torch.
"""

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporter.errors import ExportError, NeedsOptions, reason_of, shortened
from gateway.modelspec import is_model_id

CONFIG_FILE: Final = "config.json"
PREPROCESSOR_FILE: Final = "preprocessor_config.json"
# If both exist, transformers reads the second one, which its newer releases write.
PREPROCESSOR_FILES: Final = (PREPROCESSOR_FILE, "processor_config.json")
# Files of PEFT, then of the library `adapters`. The weights beside them are those of the model
# before the adapter was trained.
ADAPTER_FILES: Final = (
    *("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"),
    *("adapter.safetensors", "pytorch_adapter.bin", "adapter_fusion_config.json"),
    *("model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"),
    *("head_config.json", "model_head.safetensors", "pytorch_model_head.bin"),
)
HOW_TO_MERGE: Final = (
    "merge it into the model with peft's `merge_and_unload()`, save the result and the image"
    " processor with `save_pretrained` into another folder, and export that"
)

_SAFETENSORS: Final = ("model.safetensors", "model.safetensors.index.json")
_PICKLES: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_ABSENT: Final = "is not there"
_GIT_LFS: Final = b"version https://git-lfs.github.com/spec/"
_WEB_PAGE: Final = (b"<!doctype html", b"<html")
_HEAD_BYTES: Final = 64
# Configs are far smaller: one with the names of 100,000 labels has about 6 MiB.
_MAX_JSON_MIB: Final = 64
# transformers makes this many objects before it reads the weights.
_LARGEST: Final = {"num_labels": 1_000_000, "num_hidden_layers": 10_000}
# Most characters that an error quotes of a name.
MAX_NAME_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """A checkpoint on this machine, and where it came from."""

    path: Path
    source: str
    """What the user named: the folder, a hub id, or a preset."""
    commit: str | None = None
    """Commit on the hub; none if the checkpoint is not from the hub."""

    @property
    def model_id(self) -> str:
        """The default model id: the hub id, or the folder's name."""
        path = folder_at(self.source)
        return self.source if path is None else path.resolve().name


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The files of a folder that an export reads; all of them are readable."""

    config: dict[str, Any]
    """The content of `config.json`."""
    weights: tuple[Path, ...]
    """The files that hold the tensors; empty if the weights are random."""


def refuse_file(source: str) -> None:
    """Refuse a MODEL that is a file: weights, a graph or an archive are no whole checkpoint.

    Raises:
        ExportError: Names the folder to use instead.
    """
    path = Path(source)
    if not is_file(path):
        return
    if is_file(path.parent / CONFIG_FILE):
        way_out = f"name the folder that it is in: {path.parent}"
    else:
        way_out = (
            "name the folder that `save_pretrained` wrote, with config.json,"
            f" {PREPROCESSOR_FILE} and *.safetensors"
        )
    shown = shortened(source, MAX_NAME_CHARS)
    raise ExportError(f"{shown} is a file, and a model is made from a whole checkpoint; {way_out}")


def folder_at(source: str) -> Path | None:
    """The folder `source` if it exists, else none.

    Raises:
        ExportError: The system does not let us look.
    """
    path = Path(source)
    try:
        return path if stat.S_ISDIR(path.stat().st_mode) else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as exc:
        shown = shortened(source, MAX_NAME_CHARS)
        raise ExportError(f"{shown} cannot be read: {exc.strerror}") from exc


def is_file(path: Path) -> bool:
    """Whether a regular file is there, or a link to one."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    # Python raises ValueError for a name that no file can have.
    except (OSError, ValueError):
        return False


def fault_of(path: Path) -> str | None:
    """Why a file cannot be used, as the end of a sentence that begins with its name; or none."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return "is a folder" if stat.S_ISDIR(mode) else "is no regular file"
        with path.open("rb") as file:
            return _fault_of_content(file.read(_HEAD_BYTES))
    except FileNotFoundError:
        return "is a link to a file that is not there" if path.is_symlink() else _ABSENT
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    except ValueError:
        return "is a name that no file can have"


def _fault_of_content(head: bytes) -> str | None:
    if not head:
        return "is empty"
    if head.startswith(_GIT_LFS):
        return "is a git-lfs pointer, not the file: fetch the file with `git lfs pull`"
    if head.lstrip().lower().startswith(_WEB_PAGE):
        return "is a web page, not the file: download the file again"
    return None


def read_checkpoint_files(
    folder: CheckpointFolder, random_weights: bool, allow_pickle: bool
) -> CheckpointFiles:
    """Check the files that an export of this folder reads.

    Args:
        folder: The checkpoint.
        random_weights: Leave the weights out.
        allow_pickle: Take `pytorch_model.bin` where there are no safetensors.

    Raises:
        ExportError: A file is missing, unreadable or of another kind than its name says; or the
            folder holds an adapter.
    """
    try:
        names = {path.name for path in folder.path.iterdir()}
    except OSError as exc:
        raise ExportError(f"{folder.source} cannot be read: {exc.strerror}") from exc
    adapter = next((name for name in ADAPTER_FILES if name in names), None)
    if adapter is not None and not random_weights:
        raise ExportError(f"{folder.source} holds an adapter ({adapter}): {HOW_TO_MERGE}")
    if CONFIG_FILE not in names:
        raise ExportError(
            f"{folder.source} is no checkpoint: it holds no {CONFIG_FILE}; name the folder that"
            " `save_pretrained` wrote"
        )
    config = _read_json(folder, CONFIG_FILE)
    for field, largest in _LARGEST.items():
        if isinstance(config.get(field), int) and config[field] > largest:
            raise ExportError(f"{folder.source}: {field} in {CONFIG_FILE} is above {largest}")
    for name in PREPROCESSOR_FILES:
        # transformers also skips a folder of this name.
        if is_file(folder.path / name):
            _read_json(folder, name)
    if random_weights:
        return CheckpointFiles(config, ())
    return CheckpointFiles(config, _weights(folder, config, allow_pickle))


def _weights(
    folder: CheckpointFolder, config: dict[str, Any], allow_pickle: bool
) -> tuple[Path, ...]:
    """The weight files that transformers would choose, by its own order of preference."""
    names = (*_SAFETENSORS, *(_PICKLES if allow_pickle else ()))
    named_by = ""
    explicit = config.get("transformers_weights")
    if explicit is not None:
        if not isinstance(explicit, str):
            raise ExportError(
                f"{folder.source}: transformers_weights in {CONFIG_FILE} is no file name"
            )
        names, named_by = (explicit,), f" (transformers_weights in {CONFIG_FILE})"
    chosen = next((name for name in names if is_file(folder.path / name)), None)
    if chosen is None:
        raise _without_weights(folder, names, named_by)
    files = [chosen]
    if chosen.endswith(".json"):
        shards = _read_json(folder, chosen).get("weight_map")
        if not isinstance(shards, dict):
            raise ExportError(f"{folder.source} cannot be loaded: {chosen} has no weight_map")
        files = sorted({str(name) for name in shards.values()})
        named_by = f" (weight_map in {shortened(chosen, MAX_NAME_CHARS)})"
    for name in files:
        _refuse_unreadable(folder, name, named_by)
    return tuple(folder.path / name for name in files)


def _without_weights(
    folder: CheckpointFolder, names: tuple[str, ...], named_by: str
) -> ExportError:
    what = f"{folder.source} has no weights:"
    for name in names:
        fault = fault_of(folder.path / name)
        if fault != _ABSENT:
            return ExportError(f"{what} {shortened(name, MAX_NAME_CHARS)} {fault}{named_by}")
    has_pickle = any(is_file(folder.path / name) for name in _PICKLES)
    # Pickles are not downloaded unless they are allowed.
    may_have_pickle = has_pickle or folder.commit is not None
    if names != _SAFETENSORS or not may_have_pickle:
        listed = shortened(" or ".join(names), MAX_NAME_CHARS)
        return ExportError(f"{what} {listed} {_ABSENT}{named_by}")
    has = "pickled weights only" if has_pickle else "no weights but perhaps pickled ones"
    model_id = folder.model_id if is_model_id(folder.model_id) else None
    return NeedsOptions(
        f"{folder.source} has {has}; if you trust their source, add --allow-pickle",
        folder.source,
        model_id,
        "--allow-pickle",
    )


def _refuse_unreadable(folder: CheckpointFolder, name: str, named_by: str = "") -> None:
    fault = fault_of(folder.path / name)
    if fault is not None:
        shown = shortened(name, MAX_NAME_CHARS)
        raise ExportError(f"{folder.source} cannot be loaded: {shown} {fault}{named_by}")


def _read_json(folder: CheckpointFolder, name: str) -> dict[str, Any]:
    """The object in a JSON file."""
    _refuse_unreadable(folder, name)
    path, what = folder.path / name, f"{folder.source} cannot be loaded: {name}"
    try:
        mib = path.stat().st_size / 2**20
        if mib > _MAX_JSON_MIB:
            raise ExportError(f"{what} has {mib:.0f} MiB, the limit is {_MAX_JSON_MIB} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ExportError(f"{what} cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise ExportError(f"{what} is not valid JSON: {reason_of(exc)}") from exc
    if not isinstance(content, dict):
        raise ExportError(f"{what} holds no JSON object")
    return content
