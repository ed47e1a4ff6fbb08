"""`vitriton serve --cpu-latency`: the kernel is told, for as long as it runs."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.local.cpu_latency import cpu_latency, ignored_because
from deploy.local.errors import LocalError
from tests.stack import run_vitriton, running_stack

_DEVICE = Path("/dev/cpu_dma_latency")
# What any kernel heeds whose idle processors can spin; they do so for seconds.
_LATENCY_US = 0
_IGNORED = ignored_because(_LATENCY_US)


def requested() -> int:
    """The shortest that any process of the machine asks for, by the kernel's word."""
    return int.from_bytes(_DEVICE.read_bytes(), sys.byteorder, signed=True)


@pytest.fixture
def before() -> int:
    """What is asked for without us."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        pytest.skip(f"{_DEVICE} cannot be opened: it takes root and the kernel's device")
    latency_us = requested()
    if latency_us <= _LATENCY_US:
        pytest.skip(f"another process asks for {latency_us} µs already; ours would not show")
    return latency_us


@pytest.mark.skipif(_IGNORED is not None, reason=str(_IGNORED))
def test_kernel_is_asked_while_it_serves(
    before: int, demo_repository: Path, tmp_path: Path
) -> None:
    """And no longer: the request goes with the process."""
    arguments = ["vitriton/vit-digits", "--cpu-latency", str(_LATENCY_US)]

    with running_stack(arguments, demo_repository, tmp_path):
        during = requested()

    assert during == _LATENCY_US
    assert requested() == before


def test_kernel_is_asked_for_the_block_alone(before: int) -> None:
    """An error in the block ends the request as well."""
    with suppress(KeyError), cpu_latency(_LATENCY_US):
        during = requested()
        raise KeyError

    assert during == _LATENCY_US
    assert requested() == before


@pytest.mark.parametrize(
    ("microseconds", "driver", "governor", "shallowest", "says"),
    [
        (0, "none", "menu", None, "no cpuidle driver"),
        (0, None, None, None, "no cpuidle driver"),
        (0, "haltpoll", "haltpoll", "POLL", None),
        (5, "haltpoll", "haltpoll", "POLL", "heeds 0 alone"),
        (0, "intel_idle", "menu", "POLL", None),
        (5, "intel_idle", "menu", "POLL", None),
        (0, "psci_idle", "menu", "WFI", "always halt"),
        (5, "psci_idle", "menu", "WFI", None),
    ],
)
def test_machine_that_would_not_heed_it_is_recognised(
    microseconds: int,
    driver: str | None,
    governor: str | None,
    shallowest: str | None,
    says: str | None,
    tmp_path: Path,
) -> None:
    """By what the kernel tells of its processors."""
    for name, text in (
        ("cpuidle/current_driver", driver),
        ("cpuidle/current_governor", governor),
        ("cpu0/cpuidle/state0/name", shallowest),
    ):
        if text is not None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")

    reason = ignored_because(microseconds, tmp_path)

    assert (reason is None) == (says is None)
    assert says is None or says in str(reason)


def test_kernel_that_refuses_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    """It names the option, the device, and what is needed."""
    missing = tmp_path / "cpu_dma_latency"

    with pytest.raises(LocalError, match="takes root") as caught, cpu_latency(0, missing):
        pytest.fail("the block ran")

    assert str(caught.value).startswith(f"--cpu-latency: {missing} cannot be opened: No such file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--cpu-latency", "-1", "-1 is no latency: 0 to 2147483647"),
        ("--cpu-latency", "2147483648", "2147483648 is no latency: 0 to 2147483647"),
        ("--port", "65536", "65536 is no port: 0 to 65535"),
        ("--port", "http", "http is no port: 0 to 65535"),
    ],
)
def test_wrong_number_is_named_with_its_bounds(
    option: str, value: str, says: str, tmp_path: Path
) -> None:
    """Refused before anything starts; exit code 2."""
    done = run_vitriton(["serve", f"{option}={value}"], tmp_path)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(says)
