"""Find a checkpoint: a local folder, an architecture known by name, or a model of the hub."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from exporter.digest import CONFIG_FILES, PICKLE_FILES, WEIGHT_FILES
from exporter.errors import ExportError, reason_of, shortened
from exporter.folder import (
    CONFIG_FILE,
    MAX_NAME_CHARS,
    PREPROCESSOR_FILE,
    CheckpointFolder,
    folder_at,
    refuse_file,
)
from exporter.presets import PRESETS
from gateway.modelspec import is_model_id


@contextmanager
def checkpoint_folder(
    source: str, revision: str | None, random_weights: bool, allow_pickle: bool
) -> Iterator[CheckpointFolder]:
    """Yield the folder of `source`, whose files are not checked yet.

    Args:
        source: A folder, a preset where weights are random, or a hub id.
        revision: Branch, tag or commit on the hub.
        random_weights: Do not download the weights.
        allow_pickle: Download pickled weights too.

    Raises:
        ExportError: There is no such folder, preset or model, or the hub refuses access to it.
    """
    path = folder_at(source)
    if path is not None:
        yield CheckpointFolder(path, source)
    elif random_weights and source in PRESETS:
        with tempfile.TemporaryDirectory(prefix="vitriton-preset-") as folder:
            preset = PRESETS[source]
            contents = {CONFIG_FILE: preset.config, PREPROCESSOR_FILE: preset.preprocessor}
            for name, content in contents.items():
                (Path(folder) / name).write_text(json.dumps(content))
            yield CheckpointFolder(Path(folder), source)
    elif source.startswith((".", "/", "~")) or not is_model_id(source) or Path(source).exists():
        refuse_file(source)
        raise ExportError(
            f"{shortened(source, MAX_NAME_CHARS)} is neither a checkpoint folder nor a hub id"
            " such as google/vit-base-patch16-224"
        )
    else:
        weights = WEIGHT_FILES + (PICKLE_FILES if allow_pickle else [])
        patterns = CONFIG_FILES + ([] if random_weights else weights)
        yield _download(source, revision, patterns)


def _download(model_id: str, revision: str | None, patterns: list[str]) -> CheckpointFolder:
    """Download the model's files, unless they are in the hub's cache."""
    try:
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError) as exc:
        raise ExportError(f"{model_id} {_why_not_downloaded(exc, revision)}") from exc
    except HFValidationError as exc:
        raise ExportError(f"{model_id!r} is no hub id: {reason_of(exc)}") from exc
    except (OSError, HTTPError) as exc:
        raise ExportError(
            f"{model_id} could not be downloaded: {reason_of(exc)}; try again, what has arrived"
            " is kept"
        ) from exc
    # The cache's layout is `snapshots/<commit>`.
    return CheckpointFolder(folder, model_id, folder.name)


def _why_not_downloaded(
    error: HfHubHTTPError | LocalEntryNotFoundError, revision: str | None
) -> str:
    # If the cache was tried in vain, the hub's response is only in the error's cause.
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
