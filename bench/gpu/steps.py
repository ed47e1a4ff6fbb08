"""The steps of a run. Each yields its figures one by one, so that a step that fails keeps some."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic
from typing import Any, Final

from bench.counters import gateway_stages
from bench.gpu.plan import MODEL, NULL, Mode, Plan, load_processes
from bench.gpu.stacks import Stacks
from bench.gpu.watch import Watch
from bench.measure import closed, floor, measure
from bench.models import BenchModel, export, graph_of, is_exported
from bench.servers import Server, gateway_before
from gateway.runtime.processors import available_cpus
from gateway.settings import Settings
from tests.jpeg_profile import repository_with_cpu_jpeg

_WARM_UP_S: Final = 1.5

Figures = Iterator[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What the steps share."""

    plan: Plan
    exported: Path
    """The model repository that the exporter writes."""
    repository: Path
    """The one that is served."""
    picture: Path
    stacks: Stacks


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the run, with the seconds that it may take."""

    name: str
    run: Callable[[Bench], Figures]
    most_s: float


def export_model(bench: Bench) -> Figures:
    """Export the model, unless an earlier run has; without a GPU add what a CPU can serve."""
    plan = bench.plan
    is_kept = is_exported(bench.exported, MODEL)
    start = monotonic()
    if not is_kept:
        model = BenchModel(MODEL, plan.preset, plan.precision, plan.max_batch_size)
        export(bench.exported, model)
    if bench.repository != bench.exported:
        shutil.rmtree(bench.repository, ignore_errors=True)
        repository_with_cpu_jpeg(bench.exported, bench.repository)
    yield "seconds", monotonic() - start
    yield "is_of_earlier_run", is_kept


def graph_alone(bench: Bench) -> Figures:
    """The graph without a server."""
    bench.stacks.close()
    graph = graph_of(bench.repository, MODEL)
    yield from _rows(["bench.gpu.graph", str(graph)], bench.plan.batches, bench.plan.limit_s)


def decode_floor(bench: Bench) -> Figures:
    """Decoding with the gateway's own functions on all processors."""
    bench.stacks.close()
    yield from floor(bench.picture, available_cpus())._asdict().items()


def jpeg_decoders(bench: Bench) -> Figures:
    """Decoding with nvImageCodec without a server."""
    bench.stacks.close()
    plan = bench.plan
    yield from _rows(["bench.gpu.jpeg", str(bench.picture)], plan.batches, plan.limit_s)


def resizers(bench: Bench) -> Figures:
    """Ways to resize on the device."""
    bench.stacks.close()
    plan = bench.plan
    yield from _rows(["bench.gpu.resize", str(bench.picture)], plan.resize_batches, plan.limit_s)


def stack_of(mode: Mode) -> Callable[[Bench], Figures]:
    """The step that measures the whole stack in a mode, under each number of clients."""

    def run(bench: Bench) -> Figures:
        server = bench.stacks.get(mode)
        yield "ready_s", bench.stacks.ready_s[mode]
        yield "backend", bench.stacks.lines_about(MODEL)
        warm_up(bench, server, MODEL)
        for clients in bench.plan.clients:
            yield str(clients), load(bench, server, MODEL, clients, bench.plan.load_s)

    return run


def one_client(bench: Bench) -> Figures:
    """Where the milliseconds of a lone client go: the model, and one that computes nothing."""
    server = bench.stacks.get("jpegs")
    bench.stacks.add_null(NULL, server)
    for key, model_id in (("model", MODEL), ("null", NULL)):
        measure(server, model_id, bench.picture, closed(1, _WARM_UP_S))
        before = gateway_stages(f"{server.url}/metrics")
        found = load(bench, server, model_id, 1, bench.plan.load_s)
        stages = gateway_stages(f"{server.url}/metrics") - before
        yield key, found | {"gateway_ms": stages.ms_per_image()}


def workers_in(mode: Mode) -> Callable[[Bench], Figures]:
    """The step that measures gateways with several numbers of workers before one Triton."""

    def run(bench: Bench) -> Figures:
        plan = bench.plan
        stack = bench.stacks.get(mode)
        for workers in plan.workers[mode]:
            settings = Settings(workers=workers)
            with gateway_before(
                stack, f"{workers} workers", GATEWAY_WORKERS=str(workers)
            ) as server:
                warm_up(bench, server, MODEL)
                found = load(bench, server, MODEL, plan.sweep_clients, plan.sweep_s)
            yield str(workers), found | {"decoding_threads": settings.decoding_threads}

    return run


def instances(bench: Bench) -> Figures:
    """The model with several numbers of instances in Triton."""
    plan = bench.plan
    server = bench.stacks.get("jpegs")
    for number in plan.instances:
        model_id = f"{MODEL}-{number}"
        bench.stacks.add_instances(model_id, server, number)
        warm_up(bench, server, model_id)
        yield str(number), load(bench, server, model_id, plan.sweep_clients, plan.sweep_s)


def warm_up(bench: Bench, server: Server, model_id: str) -> None:
    """Load a server before it is measured: its workers start, and libraries allocate memory."""
    load(bench, server, model_id, bench.plan.sweep_clients, _WARM_UP_S)


def load(
    bench: Bench, server: Server, model_id: str, clients: int, seconds: float
) -> dict[str, Any]:
    """The figures of a closed loop of many clients, and of the GPU meanwhile.

    Raises:
        RuntimeError: No request was answered.
    """
    processes = load_processes(clients)
    with Watch(server) as watch:
        measured = measure(server, model_id, bench.picture, closed(clients, seconds, processes))
    if not measured.answered:
        raise RuntimeError(
            f"no request of {clients} clients was answered; {measured.errors} failed"
        )
    found = {"clients": clients, "load_processes": processes} | asdict(measured)
    return found | {"gpu": watch.gpu(), "connections": watch.connections()}


def _rows(command: list[str], batches: tuple[int, ...], seconds: float) -> Figures:
    """Run a measurement of its own process, and yield each row that it prints."""
    options = ["--batches", *map(str, batches), "--seconds", str(seconds)]
    rows: list[dict[str, Any]] = []
    argv = [sys.executable, "-m", *command, *options]
    # A file, as nobody reads errors before the end, and libraries may write many.
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            for line in process.stdout:
                # Libraries may print lines of their own.
                if line.startswith("{"):
                    rows.append(json.loads(line))
                    yield "rows", rows
            code = process.wait()
        finally:
            process.kill()
        if code != 0:
            errors.seek(0)
            reason = (errors.read().strip().splitlines() or ["it wrote no reason"])[-1]
            raise RuntimeError(f"{command[0]} ended with code {code}: {reason}")


# In order of importance: a run may be cut off.
STEPS: Final = (
    Step("export", export_model, 150),
    Step("graph", graph_alone, 60),
    Step("jpegs", stack_of("jpegs"), 80),
    Step("one_client", one_client, 40),
    # What decides the default number of workers.
    Step("workers_jpegs", workers_in("jpegs"), 70),
    Step("pixels", stack_of("pixels"), 80),
    Step("decode_floor", decode_floor, 30),
    Step("jpeg_decoders", jpeg_decoders, 40),
    Step("resizers", resizers, 40),
    Step("instances", instances, 70),
    Step("workers_pixels", workers_in("pixels"), 60),
)
