"""What a run was made on."""

import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from gateway import __version__
from gateway.cpus import available_cpus


def machine() -> dict[str, Any]:
    """Facts that make figures comparable, or not."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "processors": available_cpus(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vitriton": __version__,
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
