"""`vitriton doctor`: say what is wrong with this machine or with a model repository."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.demo_folder import DEMO_MODEL
from deploy.local.embedded_triton import find_embedded_triton
from deploy.local.errors import LocalError
from deploy.local.model_selection import (
    reason_to_export,
    refuse_impossible_export,
    refuse_unusable_ids,
    served_id,
)
from deploy.local.port import open_port
from deploy.local.profile import CPU, choose_profile
from deploy.local.work_folder import SHM, temporary_folder
from exporter.entry import check_hash, read_entry
from exporter.errors import ExportError
from exporter.precision import cpu_has_bf16
from exporter.repository import refuse_unwritable
from gateway.settings import load_settings

# Triton keeps one region for each model instance, which grows while a full batch is in it.
_MIN_SHM_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `problem` is none if nothing is wrong."""

    subject: str
    detail: str
    problem: str | None = None


def examine(
    models: list[str], repository: Path, precision: str, port: int | None, profile: str
) -> Iterator[Finding]:
    """Check everything that `vitriton serve` with these arguments needs, one finding at a time.

    The checks are the functions that `serve` itself calls first; nothing is written.
    """
    entries = sorted(p for p in repository.glob("*") if p.is_dir())
    checks: list[tuple[str, Callable[[], str]]] = [
        ("embedded Triton", _triton),
        ("shared memory", _shared_memory),
        ("temporary folder", lambda: str(temporary_folder())),
        ("settings", _settings),
        ("port", partial(_port, port)),
        ("device", partial(_device, profile)),
        ("model repository", partial(_repository, repository, len(entries))),
        ("ids", partial(_ids, models, repository)),
        *(
            (f"serving {model}", partial(_serving, model, repository, precision))
            for model in models or [DEMO_MODEL]
        ),
        *((f"model {entry.name}", partial(_entry, entry)) for entry in entries),
    ]
    for subject, check in checks:
        try:
            yield Finding(subject, check())
        except (LocalError, ExportError, ValueError, OSError) as exc:
            yield Finding(subject, "", str(exc))


def _triton() -> str:
    return str(find_embedded_triton().tritonserver)


def _shared_memory() -> str:
    free = shutil.disk_usage(SHM).free
    if free < _MIN_SHM_BYTES:
        raise LocalError(
            f"{SHM} has {free // 2**20} MiB free, and Triton needs {_MIN_SHM_BYTES // 2**20};"
            " in a container start it with a larger --shm-size"
        )
    return f"{free // 2**20} MiB free in {SHM}"


def _settings() -> str:
    load_settings()
    return "GATEWAY_* variables can be used"


def _port(port: int | None) -> str:
    settings = load_settings()
    chosen = settings.port if port is None else port
    with open_port(settings.host, chosen) as listener:
        host, opened = listener.getsockname()[:2]
        return f"{host}:{opened} is free"


def _device(wanted: str) -> str:
    profile = choose_profile(wanted)
    chosen = f"configuration `{profile.name}`: {profile.reason}"
    if profile.name != CPU:
        return chosen
    bf16 = "with" if cpu_has_bf16() else "without"
    return f"CPU, {len(os.sched_getaffinity(0))} processors, {bf16} bfloat16; {chosen}"


def _repository(repository: Path, entries: int) -> str:
    holds = f"{repository} holds {entries} model{'' if entries == 1 else 's'}"
    try:
        refuse_unwritable(repository)
    except ExportError as exc:
        if not entries:
            raise
        # The models in the repository can still be served.
        return f"{holds} and takes no others: {exc}"
    return holds if repository.is_dir() else f"{repository} is not there, and can be made"


def _ids(models: list[str], repository: Path) -> str:
    refuse_unusable_ids(models, repository)
    return ", ".join(served_id(model) for model in models or [DEMO_MODEL])


def _serving(model: str, repository: Path, precision: str) -> str:
    reason = reason_to_export(model, repository, precision)
    if reason is None:
        return f"{repository} holds it"
    refuse_impossible_export(model, repository)
    return f"`serve` exports it first: {reason}"


def _entry(entry: Path) -> str:
    found = read_entry(entry)
    check_hash(found)
    spec, mebibytes = found.spec, found.model_file.stat().st_size / 2**20
    return (
        f"{spec.model_id}, {spec.dtype}, {len(spec.id2label)} labels, batches of up to"
        f" {found.max_batch_size}, {mebibytes:.1f} MiB, sha256 as in the contract"
    )
