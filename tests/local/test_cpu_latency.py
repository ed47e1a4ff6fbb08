"""`vitriton serve --cpu-latency`: the kernel is told, for as long as it runs."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.local.cpu_latency import cpu_latency, requested_cpu_latency
from deploy.local.errors import LocalError
from tests.stack import run_vitriton, running_stack

_DEVICE = Path("/dev/cpu_dma_latency")
# Short enough to be seen beside the kernel's own 2,000 s, long enough to change nothing.
_LATENCY_US = 12_345

needs_device = pytest.mark.skipif(
    not os.access(_DEVICE, os.R_OK | os.W_OK),
    reason=f"{_DEVICE} cannot be opened: it takes root and the kernel's CPU latency QoS",
)


@needs_device
def test_kernel_is_asked_while_it_serves(demo_repository: Path, tmp_path: Path) -> None:
    """And no longer: the request goes with the process."""
    before = requested_cpu_latency()
    arguments = ["vitriton/vit-digits", "--cpu-latency", str(_LATENCY_US)]

    with running_stack(arguments, demo_repository, tmp_path):
        during = requested_cpu_latency()

    # Others may ask for less at the same time.
    assert during == min(before, _LATENCY_US)
    assert requested_cpu_latency() == before


@needs_device
def test_kernel_is_asked_for_the_block_alone() -> None:
    """An error in the block ends the request as well."""
    before = requested_cpu_latency()

    with suppress(KeyError), cpu_latency(_LATENCY_US):
        during = requested_cpu_latency()
        raise KeyError

    assert during == min(before, _LATENCY_US)
    assert requested_cpu_latency() == before


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
