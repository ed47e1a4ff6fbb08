"""`vitriton doctor`: say what is wrong with this machine or with a model repository."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.embedded_triton import find_embedded_triton, has_nvidia_gpu
from deploy.local.errors import LocalError
from exporter.entry import check_hash, read_entry
from exporter.errors import ExportError
from exporter.precision import cpu_has_bf16
from gateway.settings import load_settings

_SHM: Final = Path("/dev/shm")  # noqa: S108 - where Triton's python backend keeps its regions
# A region a model, with room to grow while a full batch is in it.
_MIN_SHM_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `problem` is none where all is well."""

    subject: str
    detail: str
    problem: str | None = None


def examine(repository: Path) -> Iterator[Finding]:
    """Look at everything `vitriton serve` needs, one finding at a time."""
    entries = sorted(p for p in repository.glob("*") if p.is_dir())
    checks: list[tuple[str, Callable[[], str]]] = [
        ("embedded Triton", _triton),
        ("shared memory", _shared_memory),
        ("settings", _settings),
        ("port", _port),
        ("device", _device),
        ("model repository", lambda: _repository(repository)),
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
    free = shutil.disk_usage(_SHM).free
    if free < _MIN_SHM_BYTES:
        raise LocalError(
            f"{_SHM} has {free // 2**20} MiB free, and Triton needs {_MIN_SHM_BYTES // 2**20};"
            " in a container start it with a larger --shm-size"
        )
    return f"{free // 2**20} MiB free in {_SHM}"


def _settings() -> str:
    load_settings()
    return "GATEWAY_* variables can be used"


def _port() -> str:
    settings = load_settings()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as exc:
            raise LocalError(
                f"{settings.host}:{settings.port} cannot be opened: {exc.strerror}; something may"
                " be serving there already, or choose another with --port"
            ) from exc
    return f"{settings.host}:{settings.port} is free"


def _device() -> str:
    if has_nvidia_gpu():
        return "NVIDIA GPU"
    bf16 = "with" if cpu_has_bf16() else "without"
    return f"CPU, {len(os.sched_getaffinity(0))} processors, {bf16} bfloat16"


def _repository(repository: Path) -> str:
    if not repository.is_dir():
        raise LocalError(f"{repository} is not there; `vitriton export` makes it")
    entries = [p for p in repository.iterdir() if p.is_dir()]
    return f"{repository} holds {len(entries)} model{'' if len(entries) == 1 else 's'}"


def _entry(entry: Path) -> str:
    found = read_entry(entry)
    check_hash(found)
    spec, mebibytes = found.spec, found.model_file.stat().st_size / 2**20
    return (
        f"{spec.model_id}, {spec.dtype}, {len(spec.id2label)} labels, batches of up to"
        f" {found.max_batch_size}, {mebibytes:.1f} MiB, sha256 as in the contract"
    )
