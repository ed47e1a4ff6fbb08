"""Measure how fast a call is, on a GPU if there is one."""

from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time
from typing import Final

import torch

# TorchScript specialises a graph in its first calls of each shape.
_SETTLING_CALLS: Final = 3
_LEAST_CALLS: Final = 3


def speed(call: Callable[[], object], images: int, seconds: float) -> dict[str, float]:
    """Images a second, milliseconds of a call, and this process's CPU milliseconds an image.

    Args:
        call: What is measured. The GPU has finished its work when the call counts as done.
        images: Images in one call.
        seconds: Time to measure for; a few calls are made even if they take longer.
    """
    for _ in range(_SETTLING_CALLS):
        call()
    _finish()
    times: list[float] = []
    cpu = process_time()
    while sum(times) < seconds or len(times) < _LEAST_CALLS:
        start = perf_counter()
        call()
        _finish()
        times.append(perf_counter() - start)
    return {
        "images_per_s": images * len(times) / sum(times),
        "ms": median(times) * 1000,
        "cpu_ms": (process_time() - cpu) * 1000 / (images * len(times)),
    }


def device() -> torch.device:
    """The first GPU, or else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
