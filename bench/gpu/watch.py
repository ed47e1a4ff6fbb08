"""Watch the GPU and the gateway's connections while a load runs.

The GPU's figures come from NVML through `nvidia-ml-py` where that is installed, else from
`nvidia-smi`, which takes longer for a sample. A machine without a GPU has none.
"""

import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

import psutil

from bench.servers import Server

_PAUSE_S: Final = 0.25
_NVIDIA_SMI_TIMEOUT_S: Final = 10.0
_QUERY: Final = "--query-gpu=utilization.gpu,power.draw,memory.used"


class Sample(NamedTuple):
    """The first GPU at one time."""

    utilisation_percent: float
    power_w: float
    memory_mib: float


class Watch:
    """A thread that takes samples during a block; read the figures after it."""

    def __init__(self, server: Server, sample: Callable[[], Sample | None] | None = None) -> None:
        self._server = server
        self._sample = sample or gpu_sampler()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watch")
        self._samples: list[Sample] = []
        self._connections: list[int] = []
        self._is_settled = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def gpu(self) -> dict[str, float] | None:
        """Medians over the block; none without a GPU."""
        if not self._samples:
            return None
        return {
            name: median(values)
            for name, values in zip(Sample._fields, zip(*self._samples, strict=True), strict=True)
        }

    def connections(self) -> list[int]:
        """Clients' connections of each process of the gateway, when there were most."""
        return sorted(self._connections, reverse=True)

    def _watch(self) -> None:
        while not self._over.wait(_PAUSE_S):
            sample = self._sample()
            if sample is not None:
                self._samples.append(sample)
            if not self._is_settled:
                self._count_connections()

    def _count_connections(self) -> None:
        """Count until no more are added: clients keep theirs, and counting takes CPU."""
        found = connections(self._server)
        self._is_settled = 0 < sum(found) <= sum(self._connections)
        self._connections = max(self._connections, found, key=sum)


def connections(server: Server) -> list[int]:
    """Established connections to the server's port, for each process that may accept them."""
    port = urlsplit(server.url).port
    found = []
    for process in server.processes():
        # psutil before version 6 lacks it: there the spread is not visible.
        with suppress(psutil.Error, AttributeError):
            mine = [c for c in process.net_connections("tcp") if c.laddr and c.laddr.port == port]
            # Every process that has the port open can accept.
            if mine:
                found.append(sum(c.status == psutil.CONN_ESTABLISHED for c in mine))
    return found


def gpu_sampler() -> Callable[[], Sample | None]:
    """The way to take a sample on this machine."""
    by_nvml = _nvml_sampler()
    if by_nvml is not None:
        return by_nvml
    if shutil.which("nvidia-smi") is not None:
        return by_nvidia_smi
    return lambda: None


def _nvml_sampler() -> Callable[[], Sample | None] | None:
    try:
        import pynvml  # noqa: PLC0415 - optional
    except ImportError:
        return None
    errors: type[Exception] = pynvml.NVMLError
    try:
        pynvml.nvmlInit()
        gpu: Any = pynvml.nvmlDeviceGetHandleByIndex(0)
    except errors:
        return None

    def sample() -> Sample | None:
        with suppress(errors):
            return Sample(
                pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
                pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
                pynvml.nvmlDeviceGetMemoryInfo(gpu).used / 2**20,
            )
        return None

    return sample


def by_nvidia_smi() -> Sample | None:
    """A sample by `nvidia-smi`; none if it fails or does not know a figure."""
    command = ["nvidia-smi", "--id=0", _QUERY, "--format=csv,noheader,nounits"]
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=True
        )
        utilisation, power, memory = (float(part) for part in done.stdout.split(","))
        return Sample(utilisation, power, memory)
    return None
