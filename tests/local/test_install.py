"""`make install` prints only a few lines of pip's output."""

import subprocess
import sys
from pathlib import Path

from deploy.local.install import progress
from tests.stack import ROOT

PIP_SAYS = """\
Looking in indexes: https://example.org/simple
Collecting torch==2.13.0
  Downloading https://example.org/whl/torch-2.13.0%2Bcpu-cp311-cp311-linux_x86_64.whl (193.4 MB)
     ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 193.4/193.4 MB 46.9 MB/s eta 0:00:00
Collecting anyio (from starlette)
  Downloading anyio-4.9.0-py3-none-any.whl.metadata (4.7 kB)
  Downloading anyio-4.9.0-py3-none-any.whl (100 kB)
  Using cached nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_x86_64.whl (55.4 MB)
  Using cached somewhat_large-1.0-py3-none-any.whl (1.2 GB)
Requirement already satisfied: pip in ./lib (24.0)
Installing collected packages: torch, anyio, nvidia-pytriton
Successfully installed anyio-4.9.0 nvidia-pytriton-0.7.0 torch-2.13.0
"""


def test_only_long_steps_have_a_line() -> None:
    """Large files have a line with their size; so has the unpacking, about which pip is silent."""
    assert list(progress(PIP_SAYS.splitlines())) == [
        "torch-2.13.0, 193.4 MB",
        "nvidia_pytriton-0.7.0, 55.4 MB",
        "somewhat_large-1.0, 1.2 GB",
        "unpacking 3 packages",
    ]


def test_many_packages_are_counted() -> None:
    """A line for every 25 packages shows progress."""
    lines = [f"Collecting package{n}" for n in range(60)]

    assert list(progress(lines)) == ["25 packages found", "50 packages found"]


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "local" / "install.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_failure_of_pip_is_passed_on_with_its_error(tmp_path: Path) -> None:
    """`make` stops, and pip's own error is printed."""
    failed = install(sys.executable, "--no-index", str(tmp_path / "nothing"))
    done = install(sys.executable, "--no-index", "pip")

    assert failed.returncode == 1
    assert "ERROR: " in failed.stderr
    assert failed.stdout.startswith("  failed after ")
    assert done.returncode == 0
    assert done.stdout.startswith("  done after ")
