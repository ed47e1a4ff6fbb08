"""Read an entry of a model repository. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from exporter.config_pbtxt import model_input, parse_pbtxt
from exporter.digest import sha256_of
from exporter.errors import ExportError, reason_of
from exporter.repository import CONFIG_FILE, CONFIGS_FOLDER, MODEL_FILE, versions_of
from gateway.modelspec import (
    CONTRACT_PARAMETER,
    InvalidContract,
    ModelSpec,
    parse_model_spec,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A model's folder in the repository, described by its configuration."""

    spec: ModelSpec
    max_batch_size: int
    model_file: Path
    """`model.pt` of the newest version."""


def read_entry(folder: Path) -> Entry:
    """Read an entry's configuration files.

    Raises:
        ExportError: A file is missing, or `vitriton export` did not write the entry.
    """
    config_file = folder / CONFIG_FILE
    if not config_file.is_file():
        raise ExportError(f"{folder} is no entry of a model repository: it has no {CONFIG_FILE}")
    spec, max_batch_size = _read_config(config_file)
    for variant in sorted((folder / CONFIGS_FOLDER).glob("*.pbtxt")):
        # Triton reads only one of these files, so all must describe the same model. The graph was
        # verified up to the batch size in `config.pbtxt`.
        described, batch_size = _read_config(variant)
        if described != spec or batch_size > max_batch_size:
            raise ExportError(f"{variant} contradicts {config_file}; export the model again")
    versions = versions_of(folder)
    model_file = folder / str(max(versions, default=1)) / MODEL_FILE
    if not model_file.is_file():
        raise ExportError(f"{model_file} is missing; export the model again")
    return Entry(spec, max_batch_size, model_file)


def _read_config(file: Path) -> tuple[ModelSpec, int]:
    """Contract and maximum batch size of one configuration."""
    try:
        config = parse_pbtxt(file.read_text(encoding="utf-8"))
        spec = parse_model_spec(config.parameters[CONTRACT_PARAMETER].string_value)
    except InvalidContract as exc:
        raise ExportError(f"{file} has no usable contract ({exc}); export it again") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ExportError(f"{file} cannot be read: {reason_of(exc)}") from exc
    known = [model_input(spec, "auto")], [model_input(spec, "gpu-jpeg")]
    if list(config.input) not in known:
        raise ExportError(f"{file} has another input than its contract; export the model again")
    return spec, int(config.max_batch_size)


def check_hash(entry: Entry) -> None:
    """Compare the newest graph with the hash in the contract.

    Raises:
        ExportError: The hashes differ, or the graph cannot be read.
    """
    try:
        digest = sha256_of(entry.model_file)
    except OSError as exc:
        raise ExportError(f"{entry.model_file} cannot be read: {exc.strerror}") from exc
    if digest != entry.spec.sha256:
        raise ExportError(
            f"{entry.model_file} is not the file that was verified: its sha256 differs from the"
            " contract's; export the model again"
        )
