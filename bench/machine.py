"""Facts about the machine that a run was made on."""

import platform
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from gateway import __version__
from gateway.runtime.processors import available_cpus

_IDLE_FACTS: Final = (
    Path("/sys/devices/system/cpu/cpuidle/current_driver"),
    Path("/sys/devices/system/cpu/cpuidle/current_governor"),
    Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns"),
)


def machine() -> dict[str, Any]:
    """Facts that tell whether the figures of two runs can be compared."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "processors": available_cpus(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vitriton": __version__,
        "idle": _idle(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _idle() -> str:
    """How the kernel treats idle processors, by its own settings."""
    facts = []
    for file in _IDLE_FACTS:
        with suppress(OSError):
            facts.append(f"{file.name} {file.read_text().strip()}")
    return " ".join(facts) or "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
