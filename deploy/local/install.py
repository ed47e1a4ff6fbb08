"""Run pip and print a line for each step that takes long, and the seconds it took in all.

    python install.py INTERPRETER PIP-ARGUMENT…

It runs before anything is installed, so it imports only the standard library. Its exit code is
pip's.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Final

# A file with its size: `Downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl (193.4 MB)`.
_FILE: Final = re.compile(
    r"\s*(?:Downloading|Using cached) (?:\S*/)?(\S+?-[\d.]+)\S* \(([\d.]+) ([MG]B)\)"
)
_PACKAGE: Final = re.compile(r"(?:Collecting|Processing) ")
_UNPACKING: Final = re.compile(r"Installing collected packages: (.+)")
# Smaller files take only a moment each, and there are dozens.
_LARGE_MB: Final = 5.0
_PACKAGES_PER_LINE: Final = 25


def main(interpreter: str, arguments: list[str]) -> int:
    """Run `pip install` with these arguments and return its exit code."""
    start = monotonic()
    command = [interpreter, "-m", "pip", "install", "--no-compile", "--disable-pip-version-check"]
    with subprocess.Popen(  # noqa: S603 - what the Makefile says
        [*command, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as pip:
        assert pip.stdout is not None  # noqa: S101 - asked for above
        for line in progress(pip.stdout):
            print(f"  {line}", flush=True)
    print(f"  {'done' if pip.returncode == 0 else 'failed'} after {monotonic() - start:.0f} s")
    return pip.returncode


def progress(lines: Iterable[str]) -> Iterator[str]:
    """Reduce the lines that pip writes to those about steps that take long."""
    found = 0
    for line in lines:
        if _PACKAGE.match(line):
            found += 1
            if found % _PACKAGES_PER_LINE == 0:
                yield f"{found} packages found"
        elif (file := _FILE.match(line)) and _megabytes(file[2], file[3]) >= _LARGE_MB:
            yield f"{file[1]}, {file[2]} {file[3]}"
        elif unpacking := _UNPACKING.match(line):
            count = unpacking[1].count(",") + 1
            yield f"unpacking {count} package{'' if count == 1 else 's'}"


def _megabytes(number: str, unit: str) -> float:
    return float(number) * (1000 if unit == "GB" else 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
