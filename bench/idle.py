"""Keep the machine's processors awake during a measurement, where the kernel allows that.

An idle processor halts. On a virtual machine the host then lends it to other guests, so a thread
that wakes up starts late and runs slowly at first. Limits never sleep and servers do, so both are
measured with processors that stay awake. What depends on halting is also measured with processors
that halt, before the rest, because a host may need time to notice a change.

The kernel's CPU latency QoS does it: Documentation/power/pm_qos_interface.rst. The kernel bounds
the wake-up time of all processors by the number written to `/dev/cpu_dma_latency`, for as long as
the file stays open; with 0 idle processors spin instead of halting.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_DEVICE: Final = Path("/dev/cpu_dma_latency")
_SYSTEM: Final = Path("/sys/devices/system/cpu")
_NO_LATENCY: Final = struct.pack("=i", 0)


@contextmanager
def processors_awake(device: Path = _DEVICE, system: Path = _SYSTEM) -> Iterator[bool]:
    """Let no processor halt during the block.

    Yields whether the kernel does so: it takes root, the kernel's device, and idle processors that
    can spin.

    Args:
        device: The kernel's device for such requests.
        system: The kernel's folder with facts about the processors.
    """
    file: int | None = None
    if can_spin(system):
        with suppress(OSError):
            file = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    if file is None:
        yield False
        return
    try:
        os.write(file, _NO_LATENCY)
        yield True
    finally:
        os.close(file)


def can_keep_awake() -> bool:
    """Whether `processors_awake` would keep them awake."""
    with processors_awake() as is_awake:
        return is_awake


def can_spin(system: Path = _SYSTEM) -> bool:
    """Whether this kernel can let an idle processor spin.

    It needs a cpuidle driver, whose shallowest state polls.
    """
    if _line(system / "cpuidle/current_driver") in {"", "none"}:
        return False
    return _line(system / "cpu0/cpuidle/state0/name") == "POLL"


def _line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
