"""How long an idle processor may take to wake: the kernel's CPU latency QoS.

A processor that has halted takes long to come back where it sleeps deeply, or where a hypervisor
gave it away meanwhile, and finds its caches cold. The interface is described in the kernel's
`Documentation/power/pm_qos_interface.rst`.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.local.errors import LocalError

MAX_LATENCY_US: Final = 2**31 - 1

_DEVICE: Final = Path("/dev/cpu_dma_latency")
_DRIVER: Final = Path("/sys/devices/system/cpu/cpuidle/current_driver")
_VALUE: Final = struct.Struct("=i")


@contextmanager
def cpu_latency(microseconds: int, device: Path = _DEVICE) -> Iterator[None]:
    """Bound the wake-up of every processor of the machine, for the length of the block.

    Args:
        microseconds: 0 to `MAX_LATENCY_US`; 0 lets no processor halt.
        device: The kernel's; the request lasts as long as it is open.

    Raises:
        LocalError: The kernel does not take the request from this process.
    """
    try:
        file = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise LocalError(
            f"--cpu-latency: {device} cannot be opened: {exc.strerror};"
            " it takes root, and in a container the device itself"
        ) from exc
    try:
        os.write(file, _VALUE.pack(microseconds))
        yield
    finally:
        os.close(file)


def requested_cpu_latency(device: Path = _DEVICE) -> int:
    """The shortest that any process of the machine asks for now, microseconds.

    Raises:
        OSError: The device cannot be read.
    """
    value: int
    (value,) = _VALUE.unpack(device.read_bytes())
    return value


def has_idle_driver() -> bool:
    """Whether the kernel heeds such requests here: many virtual machines just halt."""
    try:
        return _DRIVER.read_text().strip() != "none"
    except OSError:
        return False
