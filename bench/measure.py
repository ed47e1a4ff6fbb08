"""One measurement: a load against a server, with what it cost and how Triton batched."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.counters import triton_counters
from bench.servers import Server

_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one load."""

    server: str
    answered: int
    errors: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: dict[str, float]
    """CPU milliseconds a request by kind of process."""
    client_cpu_ms: float
    """CPU milliseconds a request of the load generator."""
    resident_mb: dict[str, float]
    peak_mb: dict[str, float]
    """Most resident megabytes since the processes started, by kind of process."""
    mean_batch: float | None
    """Images in one execution, by Triton's count."""
    mean_call: float | None
    """Images in one request to Triton."""
    triton_ms: dict[str, float]
    """Milliseconds of a request in each part of Triton's work, by its own count."""


def closed(concurrency: int, seconds: float, processes: int = 1) -> list[str]:
    """Arguments of `bench.load` for a closed loop."""
    load = ["--concurrency", str(concurrency), "--seconds", str(seconds)]
    return [*load, "--processes", str(processes)]


def measure(server: Server, model_id: str, picture: Path, load: list[str]) -> Measured:
    """Run `bench.load` with these arguments, and read the server's counters before and after."""
    before, counters = server.usage(), triton_counters(server.triton_metrics_url, model_id)
    report = run_json(["-m", "bench.load", f"{server.url}/models/{model_id}", str(picture), *load])
    after = server.usage()
    triton = triton_counters(server.triton_metrics_url, model_id) - counters
    answered = max(1, int(report["answered"]))
    return Measured(
        server=server.name,
        answered=int(report["answered"]),
        errors=int(report["errors"]),
        requests_per_s=report["requests_per_s"],
        p50_ms=report["p50_ms"],
        p99_ms=report["p99_ms"],
        cpu_ms={
            kind: (usage.cpu_s - (before[kind].cpu_s if kind in before else 0.0)) * 1000 / answered
            for kind, usage in after.items()
        },
        client_cpu_ms=report["own_cpu_ms_per_request"],
        resident_mb={kind: usage.resident_bytes / 1e6 for kind, usage in after.items()},
        peak_mb={kind: usage.peak_bytes / 1e6 for kind, usage in after.items()},
        mean_batch=triton.images / triton.executions if triton.executions else None,
        mean_call=triton.images / triton.calls if triton.calls else None,
        triton_ms=triton.ms_per_call(),
    )


class Floor(NamedTuple):
    """The cost of decoding and resizing a picture while all processors do the same."""

    cpu_ms: float
    images_per_s: float
    """Of all processors together."""


def floor(picture: Path, cpus: int) -> Floor:
    """Decode and resize a picture in one process for each processor."""
    arguments = ["-m", "bench.limits", "floor", str(picture)]
    with ThreadPoolExecutor(cpus) as pool:
        costs = list(pool.map(lambda _: run_json(arguments)["cpu_ms"], range(cpus)))
    return Floor(sum(costs) / len(costs), sum(1000 / cost for cost in costs))


def run_json(arguments: list[str]) -> dict[str, Any]:
    """Run a program of the bench and parse the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(arguments)} failed:\n{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


class LoneGraph:
    """A graph in a process of its own, with one batch size and number of threads."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def measure(self, seconds: float) -> dict[str, float]:
        """Images a second and the median milliseconds of a call."""
        process = self._process
        assert process.stdin is not None  # noqa: S101 - asked for below
        assert process.stdout is not None  # noqa: S101 - asked for below
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit("bench: the graph's process ended; it says above why")
        speed: dict[str, float] = json.loads(answer)
        return speed


@contextmanager
def lone_graph(path: Path, batch: int, threads: int) -> Iterator[LoneGraph]:
    """Start the process of a `LoneGraph`; it ends with the block."""
    argv = [sys.executable, "-m", "bench.limits", "graph", str(path)]
    with subprocess.Popen(
        [*argv, "--batch", str(batch), "--threads", str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield LoneGraph(process)
        finally:
            process.terminate()
