"""`make bench-gpu`: the limits and the whole stack on an NVIDIA machine, in six minutes.

    python -m bench.gpu.run
    python -m bench.gpu.run --quick     any machine, a small model on the CPU: tries the code

The report is written after each figure: a run that is cut off keeps what it has. A step that fails
or takes too long is recorded with its error, and the next one follows.
"""

import argparse
import importlib.metadata
import json
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, Final, NoReturn

import torch

from bench.gpu.page import markdown
from bench.gpu.picture import draw
from bench.gpu.plan import FULL, QUICK, Plan
from bench.gpu.stacks import Stacks
from bench.gpu.steps import STEPS, Bench, Step
from bench.machine import machine
from bench.models import WORK
from bench.pictures import SMALL, write_noise, write_picture

BUDGET_S: Final = 360.0
# Left for stopping the stack and writing the report.
_RESERVE_S: Final = 15.0
_LEAST_S: Final = 5.0
_LOG_LINES: Final = 40
_PACKAGES: Final = ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12", "nvidia-ml-py")
_STARTED: Final = monotonic()


class StepTimedOut(Exception):
    """A step took longer than it may."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt the block after some seconds.

    Raises:
        StepTimedOut: The block took longer. It is raised in the main thread, at any line.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise StepTimedOut(f"took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Report:
    """The figures of a run, in a file from the first one on."""

    def __init__(self, folder: Path, name: str, facts: dict[str, Any]) -> None:
        self._folder = folder
        self._name = name
        self._found: dict[str, Any] = {**facts, "steps": {}}

    def run(self, step: Step, bench: Bench, seconds: float) -> None:
        """Run a step and keep its figures, also those from before it failed."""
        found: dict[str, Any] = {"figures": {}}
        self._found["steps"][step.name] = found
        start = monotonic()
        say(step.name)
        try:
            with limited(seconds):
                for key, value in step.run(bench):
                    found["figures"][key] = value
                    self._write_json()
        # One step's fault, of whatever kind, must not cost the figures of the others.
        except (Exception, SystemExit) as exc:
            found["error"] = describe(exc)
            traceback.print_exc()
            print("\n".join(bench.stacks.log_lines()[-_LOG_LINES:]), file=sys.stderr)
            say(f"{step.name} failed: {found['error']}")
        found["seconds"] = monotonic() - start
        self._write()

    def skip(self, step: Step, reason: str) -> None:
        """Record that a step was not run."""
        self._found["steps"][step.name] = {"figures": {}, "error": reason, "seconds": 0.0}
        say(f"{step.name} is left out: {reason}")
        self._write()

    def finish(self) -> None:
        """Write the whole report, with the picture where matplotlib is installed."""
        self._found["seconds"] = monotonic() - _STARTED
        self._found["picture"] = draw(self._folder / f"{self._name}.png", self._found)
        if self._found["picture"] is None:
            say("there is no picture: matplotlib is not installed")
        self._write()
        say(f"done: {self._folder / self._name}.md")

    def _write(self) -> None:
        self._write_json()
        page = "\n".join(markdown(self._found))
        (self._folder / f"{self._name}.md").write_text(f"{page}\n")

    def _write_json(self) -> None:
        # A run that is cut off while it writes leaves the file as it was.
        unfinished = self._folder / f"{self._name}.json.tmp"
        unfinished.write_text(json.dumps(self._found, indent=1) + "\n")
        unfinished.replace(self._folder / f"{self._name}.json")


def describe(exc: BaseException) -> str:
    """One line about an error."""
    lines = [line for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[-1].strip()}" if lines else type(exc).__name__


def say(what: str) -> None:
    """Print progress on standard error, with the seconds since the start."""
    print(f"bench: {monotonic() - _STARTED:4.0f} s, {what}", file=sys.stderr, flush=True)


def card_name(device_name: str) -> str:
    """Part of a file's name for a GPU: `NVIDIA H100 80GB HBM3` is `h100-80gb-hbm3`."""
    words = re.findall(r"[a-z0-9]+", device_name.lower())
    return "-".join(word for word in words if word != "nvidia") or "unknown"


def facts(plan: Plan, picture: Path) -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "plan": asdict(plan),
        "machine": machine() | {"cuda": torch.version.cuda} | versions,
        "sent": {"file": picture.name, "bytes": picture.stat().st_size},
    }


def sent_picture() -> Path:
    """The picture that is sent: the photograph, or noise where scikit-learn is missing."""
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        return write_picture(WORK, SMALL).resolve()
    except ImportError:
        say("scikit-learn is not installed: a picture of noise replaces the photograph")
        return write_noise(WORK, SMALL).resolve()


def run(report: Report, bench: Bench, budget_s: float) -> None:
    """Run the steps while there is time."""
    for step in STEPS:
        left = budget_s - _RESERVE_S - (monotonic() - _STARTED)
        if left < _LEAST_S:
            report.skip(step, f"no time is left of {budget_s:g} s")
        else:
            report.run(step, bench, min(step.most_s, left))


def main() -> None:
    """Measure everything and write the report."""
    parser = argparse.ArgumentParser(description="Measure Vitriton on an NVIDIA machine.")
    parser.add_argument("--quick", action="store_true", help="try the code on a CPU")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="SECONDS")
    parser.add_argument("--results", type=Path, default=Path("bench/results"), metavar="DIR")
    options = parser.parse_args()
    if not options.quick and not torch.cuda.is_available():
        raise SystemExit("bench: there is no NVIDIA GPU here; --quick tries the code on a CPU")
    # Ended from outside, the run still stops its servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = QUICK if options.quick else FULL
    picture = sent_picture()
    name = "gpu-quick" if options.quick else f"gpu-{card_name(torch.cuda.get_device_name())}"
    folder = WORK if options.quick else options.results
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(folder, name, facts(plan, picture))
    exported = (WORK / f"models-gpu-{plan.name}").resolve()
    repository = exported.with_name(f"{exported.name}-served") if options.quick else exported
    with tempfile.TemporaryDirectory(prefix="vitriton-bench-") as work:
        stacks = Stacks(plan, repository, Path(work))
        try:
            run(report, Bench(plan, exported, repository, picture, stacks), options.budget)
        finally:
            stacks.close()
            report.finish()


if __name__ == "__main__":
    main()
