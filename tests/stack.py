"""Start `vitriton serve` as a user does, and read its addresses from its output."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Final
from urllib.request import ProxyHandler, build_opener

import psutil

ROOT: Final = Path(__file__).resolve().parent.parent
VITRITON: Final = [sys.executable, "-m", "deploy.cli"]
HELD_OUT: Final = ROOT / "demo" / "held-out"
START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0
WAIT_TIMEOUT_S: Final = 60.0
RUN_TIMEOUT_S: Final = 200.0
# Root may write to every folder unless it gives up that right.
AS_OTHERS: Final = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
# The image mode in which scores are those of transformers to 1e-5.
BIT_EQUAL: Final = {"GATEWAY_DECODE": "reference"}

_READY: Final = re.compile(r"ready at (http://\S+)")
_METRICS: Final = re.compile(r"metrics \S+ and (http://\S+)")
_GRPC: Final = re.compile(r"Triton gRPC (\S+)")
_LOG: Final = re.compile(r"Triton's log (\S+)")


def run_vitriton(
    arguments: list[str], folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `vitriton` in a folder, for a command that ends by itself."""
    return run_python(["-m", "deploy.cli", *arguments], folder, **environment)


def run_python(
    arguments: list[str], folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in a folder."""
    return run_command([sys.executable, *arguments], folder, **environment)


def run_vitriton_as_others(
    arguments: list[str], folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `vitriton` in a folder, as a user to whom the permissions of folders apply."""
    return run_command([*AS_OTHERS, *VITRITON, *arguments], folder, **environment)


def run_command(
    command: list[str], folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; the result has its exit code and output."""
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )


@dataclass
class Stack:
    """A running stack."""

    process: subprocess.Popen[str]
    url: str
    triton_metrics_url: str
    triton_grpc_url: str
    triton_log: Path
    lines: "queue.Queue[str | None]"

    def processes(self) -> list[psutil.Process]:
        """The process of `vitriton serve` and all its descendants."""
        runner = psutil.Process(self.process.pid)
        return [runner, *runner.children(recursive=True)]

    def rest(self) -> list[str]:
        """The lines printed after the stack was ready. Call it after the stack has ended."""
        return all_lines(self.lines)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the process of `vitriton serve` only, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)


def start_serve(
    arguments: list[str], folder: Path, **environment: str
) -> tuple[subprocess.Popen[str], "queue.Queue[str | None]"]:
    """Start `vitriton serve`, and return it with a queue of its lines, which ends with None.

    The process has a session of its own.
    """
    process = subprocess.Popen(
        [*VITRITON, "serve", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    return process, lines


def _read(output: IO[str], lines: "queue.Queue[str | None]") -> None:
    with output:
        for line in output:
            lines.put(line.rstrip("\n"))
    lines.put(None)


@contextmanager
def running_stack(
    models: list[str],
    repository: Path,
    folder: Path,
    *,
    profile: str = "auto",
    **environment: str,
) -> Iterator[Stack]:
    """A stack on free ports, stopped at the end of the block."""
    options = ["--repository", str(repository), "--port", "0"]
    # A checkout that `bench.compare` measures may be older than the option.
    options += [] if profile == "auto" else ["--profile", profile]
    process, lines = start_serve([*models, *options], folder, **environment)
    try:
        yield _wait_until_ready(process, lines)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        finally:
            process.kill()


def _wait_until_ready(process: subprocess.Popen[str], lines: "queue.Queue[str | None]") -> Stack:
    seen: list[str] = []
    while True:
        line = lines.get(timeout=START_TIMEOUT_S)
        assert line is not None, "serve ended before it was ready:\n" + "\n".join(seen)
        seen.append(line)
        text = "\n".join(seen)
        found = [pattern.search(text) for pattern in (_READY, _METRICS, _GRPC, _LOG)]
        if all(found):
            url, metrics_url, grpc_url, log = (match[1] for match in found if match)
            return Stack(process, url, metrics_url, grpc_url, Path(log), lines)


def output_of_failed_serve(
    arguments: list[str], folder: Path, **environment: str
) -> tuple[int, list[str]]:
    """Exit code and lines of a `vitriton serve` that ends by itself."""
    process, lines = start_serve(arguments, folder, **environment)
    try:
        code = process.wait(START_TIMEOUT_S)
    finally:
        process.kill()
    return code, all_lines(lines)


def all_lines(lines: "queue.Queue[str | None]") -> list[str]:
    """The lines up to the end of the output, which ends with the process."""
    found: list[str] = []
    while (line := lines.get(timeout=STOP_TIMEOUT_S)) is not None:
        found.append(line)
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    """Return once the condition holds; fail if that takes too long."""
    deadline = monotonic() + WAIT_TIMEOUT_S
    while not holds():
        assert monotonic() < deadline, "the condition was not met in time"


def triton_counts(stack: Stack, model: str) -> tuple[int, int]:
    """Inferences and executions of a model's first version, in Triton's own count."""
    with build_opener(ProxyHandler({})).open(stack.triton_metrics_url) as answer:
        text = answer.read().decode()

    def value(name: str) -> int:
        match = re.search(rf'^{name}{{model="{model}",version="1"}} (\d+)', text, re.MULTILINE)
        assert match, text
        return int(match[1])

    return value("nv_inference_count"), value("nv_inference_exec_count")
