"""How long an idle processor may take to wake: the kernel's CPU latency QoS.

A processor that has halted takes long to come back where it sleeps deeply, or where a hypervisor
gives it away meanwhile. The interface is described in the kernel's
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
_SYSTEM: Final = Path("/sys/devices/system/cpu")
_VALUE: Final = struct.Struct("=i")


@contextmanager
def cpu_latency(microseconds: int, device: Path = _DEVICE) -> Iterator[None]:
    """Bound the wake-up of every processor of the machine, for the length of the block.

    Args:
        microseconds: 0 to `MAX_LATENCY_US`; at 0 idle processors spin.
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


def ignored_because(microseconds: int, system: Path = _SYSTEM) -> str | None:
    """Why the kernel would not heed such a request on this machine; none where it would.

    Args:
        microseconds: Of the request.
        system: The folder of the kernel's that tells of its processors.
    """
    if _line(system / "cpuidle/current_driver") in {"", "none"}:
        return "this kernel has no cpuidle driver"
    if microseconds and _line(system / "cpuidle/current_governor") == "haltpoll":
        return "this kernel's governor, haltpoll, heeds 0 alone"
    if not microseconds and _line(system / "cpu0/cpuidle/state0/name") != "POLL":
        return "this machine's idle processors always halt"
    return None


def _line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
