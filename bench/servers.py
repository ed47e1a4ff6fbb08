"""Start the servers that are measured, and read the CPU and memory of their processes."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psutil

from deploy.local.triton_server import free_ports
from tests.stack import Stack, running_stack

_START_TIMEOUT_S: Final = 120.0
_STOP_TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.2
# As `vitriton serve` sets it.
_SHARED_MEMORY_BYTES: Final = 16 * 1024 * 1024


class Usage(NamedTuple):
    """CPU and memory of all processes of a kind."""

    cpu_s: float
    resident_bytes: int
    peak_bytes: int
    """Sum of the largest resident memory of each process since it started."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers `POST /models/{id}`."""

    name: str
    url: str
    pids: tuple[int, ...]
    """The server's top processes; all its other processes are below them."""
    triton_metrics_url: str | None = None
    triton_grpc_url: str | None = None

    def processes(self) -> Iterator[psutil.Process]:
        """All processes of the server."""
        for top in map(psutil.Process, self.pids):
            yield top
            yield from top.children(recursive=True)

    def usage(self) -> dict[str, Usage]:
        """CPU and memory so far, by kind of process."""
        found: dict[str, Usage] = {}
        for process in self.processes():
            times = process.cpu_times()
            before = found.get(kind := _kind(process), Usage(0.0, 0, 0))
            found[kind] = Usage(
                before.cpu_s + times.user + times.system,
                before.resident_bytes + process.memory_info().rss,
                before.peak_bytes + _peak_bytes(process.pid),
            )
        return found


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kib) * 1024


def _kind(process: psutil.Process) -> str:
    argv = process.cmdline()
    if "tritonserver" in process.name():
        return "tritonserver"
    if any("triton_python_backend_stub" in word for word in argv):
        return "stub"
    if "deploy.cli" in argv:
        return "runner"
    # The gateway's workers are its children.
    parent = process.parent()
    is_gateway = "gateway" in argv or (parent is not None and "gateway" in parent.cmdline())
    return "gateway" if is_gateway else "server"


@contextmanager
def running(starts: Sequence[AbstractContextManager[Server]]) -> Iterator[list[Server]]:
    """Start several servers at the same time, as a start keeps only one processor busy."""
    with ExitStack() as stack, ThreadPoolExecutor(len(starts)) as pool:
        yield list(pool.map(stack.enter_context, starts))


@contextmanager
def vitriton(
    models: list[str], repository: Path, work: Path, *, profile: str = "auto", **settings: str
) -> Iterator[Server]:
    """`vitriton serve`, as a user starts it; the settings are environment variables."""
    quiet = {"GATEWAY_LOG_LEVEL": "warning"} | settings
    with running_stack(models, repository, work, profile=profile, **quiet) as stack:
        yield _of_stack("vitriton", stack)


def _of_stack(name: str, stack: Stack) -> Server:
    pids = (stack.process.pid,)
    return Server(name, stack.url, pids, stack.triton_metrics_url, stack.triton_grpc_url)


@contextmanager
def gateway_before(stack: Server, name: str, **settings: str) -> Iterator[Server]:
    """A gateway with settings of its own, before the Triton of a stack that runs."""
    port = free_ports(1)[0]
    environment = {
        "GATEWAY_LOG_LEVEL": "warning",
        "GATEWAY_SHARED_MEMORY_BYTES": str(_SHARED_MEMORY_BYTES),
        "GATEWAY_TRITON_URL": str(stack.triton_grpc_url),
        "GATEWAY_PORT": str(port),
    }
    with _serving([sys.executable, "-m", "gateway"], port, environment | settings) as own:
        pids = (own, *stack.pids)
        yield Server(name, f"http://127.0.0.1:{port}", pids, stack.triton_metrics_url)


@contextmanager
def uvicorn(name: str, app: str, workers: int, **environment: str) -> Iterator[Server]:
    """A baseline, under uvicorn with uvloop and httptools."""
    port = free_ports(1)[0]
    argv = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--workers", str(workers)]
    argv += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    with _serving(argv, port, environment) as pid:
        yield Server(name, f"http://127.0.0.1:{port}", (pid,))


@contextmanager
def _serving(argv: list[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    """Start a server on a port of the loopback interface; yield its process id once it answers."""
    with subprocess.Popen(
        argv,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait_until_up(f"http://127.0.0.1:{port}", process)
            yield process.pid
        finally:
            process.terminate()
            process.wait(_STOP_TIMEOUT_S)


def _wait_until_up(url: str, process: "subprocess.Popen[bytes]") -> None:
    opener = build_opener(ProxyHandler({}))
    deadline = monotonic() + _START_TIMEOUT_S
    while monotonic() < deadline:
        try:
            with opener.open(f"{url}/openapi.json", timeout=1):
                return
        except (URLError, OSError):
            pass
        # A pause, as the server needs the processors to start.
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(_PAUSE_S)
            raise SystemExit(f"bench: the server of {url} ended with code {code}")
    raise SystemExit(f"bench: no server at {url} after {_START_TIMEOUT_S:g} s")


def pipeline_baseline(workers: int, threads: int) -> AbstractContextManager[Server]:
    """FastAPI with `transformers.pipeline`."""
    return uvicorn(
        f"FastAPI + pipeline, {workers} workers x {threads} threads",
        "bench.baselines.pipeline_app:app",
        workers,
        THREADS=str(threads),
    )


def in_process_baseline(
    graph: Path, decoders: int, threads: int = 1, max_batch: int = 64
) -> AbstractContextManager[Server]:
    """FastAPI with the same graph, decoder and batching in one process.

    Args:
        graph: A TorchScript file.
        decoders: Number of threads that decode.
        threads: Number of torch's threads on a CPU.
        max_batch: Most images in one call of the graph.
    """
    return uvicorn(
        "FastAPI, tuned, in process",
        "bench.baselines.in_process_app:app",
        1,
        DECODERS=str(decoders),
        THREADS=str(threads),
        MAX_BATCH=str(max_batch),
        GRAPH=str(graph),
    )
