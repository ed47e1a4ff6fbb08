"""Decide which models to serve, and export those that the repository lacks.

Each export runs in a process of its own: when it ends, torch's memory is free for serving.
"""

import asyncio
import logging
import os
import sys
import urllib.request
from asyncio.subprocess import DEVNULL
from pathlib import Path
from typing import Final

from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

from deploy.local.children import running
from deploy.local.demo_folder import DEMO_FOLDER, DEMO_MODEL, refuse_unwritable_demo
from deploy.local.errors import LocalError
from deploy.local.invocation import export_then_serve
from exporter.digest import checkpoint_digest
from exporter.entry import read_entry
from exporter.errors import ExportError
from exporter.folder import folder_at, refuse_file
from exporter.repository import refuse_unwritable
from gateway.modelspec import is_model_id, triton_model_name

log = logging.getLogger("vitriton")

HUB_MODEL: Final = "google/vit-base-patch16-224"

_WEIGHTS: Final = "model.safetensors"
_HUB_TIMEOUT_S: Final = 3.0
_EXPORT_GRACE_S: Final = 10.0


class ExportFailed(LocalError):
    """An export failed; its process has already written the error."""


async def prepare_models(models: list[str], repository: Path, precision: str) -> list[str]:
    """Export the models that the repository lacks; return the ids to serve.

    Args:
        models: Hub ids, ids in the repository or checkpoint folders; empty for the defaults.
        repository: The model repository.
        precision: The precision to compute in; with `auto` any entry in the repository will do.

    Raises:
        LocalError: A model is not in the repository and cannot be exported.
        ExportError: An export would fail with this error.
    """
    if not models:
        return await _prepare_defaults(repository, precision)
    refuse_unusable_ids(models, repository)
    for model in models:
        await _prepare(model, repository, precision)
    # The order is the user's; the first model becomes the default one.
    return list(dict.fromkeys(served_id(model) for model in models))


def served_id(model: str) -> str:
    """The id that a model is served under; for a checkpoint folder it is the folder's name."""
    folder = folder_at(model)
    return model if folder is None else folder.resolve().name


def refuse_unusable_ids(models: list[str], repository: Path) -> None:
    """Refuse checkpoint folders whose names cannot be model ids, or are not unique.

    Raises:
        LocalError: With the commands that serve such a folder under another id.
    """
    sources: dict[str, str] = {}
    for model in models:
        model_id = served_id(model)
        commands = export_then_serve(model, None, [], repository)
        if folder_at(model) is not None and not is_model_id(model_id):
            raise LocalError(
                f"{model} cannot be served under its folder's name, which is no model id (letters,"
                f" digits, '.', '_' and '-', no '--'); choose one: {commands}"
            )
        first = sources.setdefault(model_id, model)
        if first != model and Path(first).resolve() != Path(model).resolve():
            raise LocalError(
                f"{first} and {model} would both be served as {model_id}; give one of them another"
                f" id: {commands}"
            )


async def _prepare_defaults(repository: Path, precision: str) -> list[str]:
    """Export the demo, which needs no download, and the hub's ViT if the hub answers."""
    await _prepare(DEMO_MODEL, repository, precision)
    is_there = not reason_to_export(HUB_MODEL, repository, precision)
    if not is_there and not await asyncio.to_thread(_hub_has, HUB_MODEL):
        log.info("%s is not cached and the hub does not answer: serving the demo", HUB_MODEL)
        return [DEMO_MODEL]
    try:
        await _prepare(HUB_MODEL, repository, precision)
    except (ExportFailed, ExportError) as exc:
        log.info("%s: serving the demo without it", exc)
        return [DEMO_MODEL]
    return [HUB_MODEL, DEMO_MODEL]


async def _prepare(model: str, repository: Path, precision: str) -> None:
    reason = await asyncio.to_thread(reason_to_export, model, repository, precision)
    if reason is None:
        return
    refuse_impossible_export(model, repository)
    log.info("exporting %s: %s", model, reason)
    argv = [sys.executable, "-m", "deploy.cli", "export", model]
    options = ["--output", str(repository), "--precision", precision]
    exporting = running([*argv, *options], os.environ, grace_s=_EXPORT_GRACE_S, stdout=DEVNULL)
    async with exporting as process:
        if await process.wait() != 0:
            raise ExportFailed(f"{model} could not be exported")


def refuse_impossible_export(model: str, repository: Path) -> None:
    """Raise at once an error that the export would end with seconds later.

    Raises:
        LocalError: The demo is not trained, and its folder cannot be written to.
        ExportError: MODEL is a file, or the repository cannot be written to.
    """
    refuse_file(model)
    refuse_unwritable(repository)
    if model == DEMO_MODEL:
        refuse_unwritable_demo(DEMO_FOLDER)


def reason_to_export(model: str, repository: Path, precision: str) -> str | None:
    """Why `model` has to be exported; none if the repository's entry can be served."""
    folder = repository / triton_model_name(served_id(model))
    if not folder.is_dir():
        return f"it is not in {repository}"
    try:
        spec = read_entry(folder).spec
    except ExportError as exc:
        return str(exc)
    if precision not in {"auto", spec.dtype}:
        return f"{repository} holds it in {spec.dtype}"
    checkpoint = folder_at(model)
    if checkpoint is not None and checkpoint_digest(checkpoint) != spec.checkpoint_sha256:
        return f"{repository} holds another checkpoint of that name"
    return None


def _hub_has(model: str) -> bool:
    """Whether the weights are in the cache or on the hub; nothing is downloaded.

    The hub gets one request: the retries of huggingface_hub would delay a start without network.
    """
    if isinstance(try_to_load_from_cache(model, _WEIGHTS), str):
        return True
    if constants.HF_HUB_OFFLINE:
        return False
    question = urllib.request.Request(hf_hub_url(model, _WEIGHTS), method="HEAD")  # noqa: S310
    try:
        with urllib.request.urlopen(question, timeout=_HUB_TIMEOUT_S):  # noqa: S310
            return True
    except OSError:
        return False
