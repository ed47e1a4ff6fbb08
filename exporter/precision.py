"""Choose the precision a graph computes in, and refuse what the machine cannot compute."""

from pathlib import Path
from typing import Final, Literal

import torch

from exporter.errors import ExportError
from gateway.modelspec import Device, Dtype

Precision = Literal["auto", "fp32", "bf16", "fp16"]

TORCH_DTYPES: Final[dict[Dtype | Literal["fp64"], torch.dtype]] = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

_CPU_INFO: Final = Path("/proc/cpuinfo")
# Names of bfloat16 arithmetic on x86 and 64-bit Arm. Without it torch is far slower in bfloat16.
_BF16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def choose_dtype(precision: Precision, device: Device) -> Dtype:
    """Precision of a graph that this machine serves on `device`.

    Raises:
        ExportError: bf16 was asked for, and neither a GPU nor this processor computes in it.
    """
    if precision == "auto":
        return "fp16" if device == "gpu" else "fp32"
    if precision == "bf16" and device == "cpu" and not cpu_has_bf16():
        raise ExportError(
            "this processor has no bfloat16 arithmetic (avx512_bf16 or AMX), and there is no GPU;"
            " use --precision fp32"
        )
    return precision


def cpu_has_bf16(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the processor computes in bfloat16."""
    try:
        text = cpu_info.read_text()
    except OSError:
        return False
    flags = (
        line.partition(":")[2]
        for line in text.splitlines()
        if line.startswith(("flags", "Features"))
    )
    return any(_BF16_FLAGS & set(listed.split()) for listed in flags)
