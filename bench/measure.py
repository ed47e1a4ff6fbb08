"""One measurement: a load against a server, with what it cost and how Triton batched."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

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


def measure(server: Server, model_id: str, picture: Path, load: list[str]) -> Measured:
    """Run `bench.load` with these arguments, and read the server's counters before and after."""
    before, counts = server.usage(), _triton_counts(server, model_id)
    report = run_json(["-m", "bench.load", f"{server.url}/models/{model_id}", str(picture), *load])
    after, counts_after = server.usage(), _triton_counts(server, model_id)
    answered = max(1, int(report["answered"]))
    infers, executions, calls = (b - a for a, b in zip(counts, counts_after, strict=True))
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
        mean_batch=infers / executions if executions else None,
        mean_call=infers / calls if calls else None,
    )


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


def _triton_counts(server: Server, model_id: str) -> tuple[int, int, int]:
    """Images, executions and requests of a model since Triton started; zeros without Triton."""
    if server.triton_metrics_url is None:
        return 0, 0, 0
    with build_opener(ProxyHandler({})).open(server.triton_metrics_url, timeout=10) as answer:
        text = answer.read().decode()
    name = model_id.replace("/", "--")

    def value(metric: str) -> int:
        match = re.search(rf'^{metric}{{model="{name}",version="1"}} (\d+)', text, re.MULTILINE)
        return int(match[1]) if match else 0

    metrics = ("nv_inference_count", "nv_inference_exec_count", "nv_inference_request_success")
    images, executions, calls = map(value, metrics)
    return images, executions, calls
