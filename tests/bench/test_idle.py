"""Processors stay awake during a measurement, and no longer."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from bench.idle import can_spin, processors_awake

_DEVICE = Path("/dev/cpu_dma_latency")
_ASKED = 0


def requested_us() -> int:
    """The shortest latency that any process of the machine asks the kernel for."""
    return int.from_bytes(_DEVICE.read_bytes(), sys.byteorder, signed=True)


def machine(folder: Path, driver: str | None, shallowest_state: str | None) -> Path:
    """The kernel's folder with facts about processors of such a kind."""
    for name, text in (
        ("cpuidle/current_driver", driver),
        ("cpu0/cpuidle/state0/name", shallowest_state),
    ):
        if text is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{text}\n")
    return folder


@pytest.fixture
def before_us() -> int:
    """What other processes ask the kernel for."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        pytest.skip(f"{_DEVICE} cannot be opened: it takes root and the kernel's device")
    if not can_spin():
        pytest.skip("idle processors of this machine cannot spin")
    latency_us = requested_us()
    if latency_us <= _ASKED:
        pytest.skip(f"another process asks for {latency_us} µs already; ours would not show")
    return latency_us


def test_kernel_is_asked_during_the_block(before_us: int) -> None:
    """An error in the block ends the request as well."""
    with suppress(KeyError), processors_awake() as is_awake:
        during_us = requested_us()
        raise KeyError

    assert is_awake
    assert during_us == _ASKED
    assert requested_us() == before_us


def test_request_is_written_to_the_device(tmp_path: Path) -> None:
    """The kernel reads a 32-bit integer, here 0."""
    device = tmp_path / "cpu_dma_latency"
    device.write_bytes(b"")

    with processors_awake(device, machine(tmp_path, "haltpoll", "POLL")) as is_awake:
        assert is_awake

    assert device.read_bytes() == bytes(4)


def test_missing_device_leaves_processors_as_they_are(tmp_path: Path) -> None:
    system = machine(tmp_path, "haltpoll", "POLL")
    with processors_awake(tmp_path / "missing", system) as is_awake:
        assert not is_awake


@pytest.mark.parametrize(
    ("driver", "shallowest_state", "expected"),
    [
        pytest.param(None, None, False, id="no-cpuidle"),
        pytest.param("none", None, False, id="no-driver"),
        pytest.param("haltpoll", "POLL", True, id="haltpoll"),
        pytest.param("intel_idle", "POLL", True, id="intel"),
        pytest.param("psci_idle", "WFI", False, id="always-halts"),
    ],
)
def test_machine_that_cannot_spin_is_recognised(
    driver: str | None, shallowest_state: str | None, expected: bool, tmp_path: Path
) -> None:
    system = machine(tmp_path, driver, shallowest_state)

    assert can_spin(system) == expected
    with processors_awake(tmp_path / "missing", system) as is_awake:
        assert not is_awake
