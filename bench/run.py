"""`make bench`: the whole comparison, on this machine, in one run.

All servers of a comparison run at the same time and are loaded in turn, round by round: a change of
the machine's speed affects all of them, so ratios within a round are what counts. Writes JSON,
Markdown and a picture.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, Final, NamedTuple, get_args

from bench.idle import can_keep_awake, processors_awake
from bench.machine import machine
from bench.measure import (
    LoneGraph,
    Measured,
    closed,
    floor,
    lone_graph,
    measure,
    run_json,
)
from bench.models import (
    BASE,
    BASE_BF16,
    NULL,
    TINY,
    WORK,
    bench_models,
    graph_of,
    prepare,
    raw_graph_of,
)
from bench.pictures import LARGE, SMALL, write_picture
from bench.report import write_report
from bench.servers import Server, in_process_baseline, pipeline_baseline, running, vitriton
from exporter.precision import cpu_has_bf16
from gateway.runtime.processors import available_cpus
from gateway.settings import DecodeMode

ROUNDS: Final = 3
CONCURRENCY: Final = 32
SECONDS: Final = 4.0
# More rounds, but short ones: the machine may change its speed from one second to the next.
_SHORT_ROUNDS: Final = 5
_NULL_SECONDS: Final = 2.5
_HALTING_SECONDS: Final = 1.5
_LARGE_SECONDS: Final = 1.2
_ONE_CLIENT_SECONDS: Final = 1.2
_GRAPH_SECONDS: Final = 1.0
MEMORY_REQUESTS: Final = 10_000
_OPEN_LOOP_SHARE: Final = 0.5
_DEMO: Final = Path("demo/checkpoint")
_STARTED: Final = monotonic()


def report_progress(what: str) -> None:
    """Print progress on standard error, with the seconds since the start."""
    print(f"bench: {monotonic() - _STARTED:4.0f} s, {what}", file=sys.stderr, flush=True)


def decoding(small: Path, large: Path) -> dict[str, Any]:
    """CPU milliseconds of decoding and resizing, without a server."""
    report_progress("the limit of decoding")
    with processors_awake():
        return {
            "small": run_json(["-m", "bench.limits", "decode", str(small)]),
            "large": run_json(["-m", "bench.limits", "decode", str(large)]),
        }


def null_model(repository: Path, small: Path) -> dict[str, Any]:
    """Measure ours and the baselines with a model that costs nothing."""
    cpus = available_cpus()
    with ExitStack() as stack:
        enter = stack.enter_context
        work = Path(enter(tempfile.TemporaryDirectory(prefix="vitriton-bench-")))
        report_progress("starting the servers of the null model")
        starts = [
            vitriton([NULL], repository, work),
            in_process_baseline(graph_of(repository, NULL), cpus),
            pipeline_baseline(1, cpus),
            pipeline_baseline(cpus, 1),
        ]
        servers = enter(running(starts))
        ours = servers[0]
        for server in servers:
            measure(server, NULL, small, closed(CONCURRENCY, 2.0))
        halting: dict[str, Any] | None = None
        if can_keep_awake():
            report_progress("first with processors that halt")
            halting = _null_rounds(servers[:2], small, ROUNDS, _HALTING_SECONDS)
            halting["one_client"] = asdict(measure(ours, NULL, small, closed(1, SECONDS)))
        with processors_awake():
            found = _null_rounds(servers, small, _SHORT_ROUNDS, _NULL_SECONDS)
            report_progress("null model, one client, and an open loop")
            speeds = [m["requests_per_s"] for m in found["rounds"][ours.name]]
            rate = _OPEN_LOOP_SHARE * median(speeds)
            load = ["--rate", f"{rate:.0f}", "--seconds", str(SECONDS)]
            opened = measure(ours, NULL, small, load)
            found["one_client"] = asdict(measure(ours, NULL, small, closed(1, SECONDS)))
            found["open_loop"] = {"rate": rate, **asdict(opened)}
            found["memory"] = _memory(ours, small)
        return found if halting is None else found | {"halting": halting}


def _null_rounds(servers: list[Server], small: Path, number: int, seconds: float) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
    floors = []
    for n in range(number):
        report_progress(f"null model, round {n + 1} of {number}")
        floors.append(floor(small, available_cpus()).cpu_ms)
        for server in servers:
            measured = measure(server, NULL, small, closed(CONCURRENCY, seconds))
            rounds[server.name].append(asdict(measured))
    return {"floors_ms": floors, "rounds": rounds}


def _memory(server: Server, small: Path) -> dict[str, float]:
    """Resident megabytes of the gateway before, half-way and after many requests."""
    report_progress(f"memory over {MEMORY_REQUESTS} requests")
    half = ["--requests", str(MEMORY_REQUESTS // 2), "--concurrency", str(CONCURRENCY)]
    halves = [measure(server, NULL, small, [*half, "--seconds", "120"]) for _ in range(2)]
    answered = sum(m.answered for m in halves)
    first, second = (m.resident_mb["gateway"] for m in halves)
    return {"requests": answered, "half_way_mb": first, "end_mb": second}


def real_model(
    repository: Path, model_id: str, small: Path, *, in_depth: bool = False
) -> dict[str, Any]:
    """Measure a ViT behind the whole stack, and transformers' graph alone at its best setting.

    Args:
        repository: The bench's model repository.
        model_id: A model in it.
        small: The picture to send.
        in_depth: Measure the exported graph alone as well, the same graph behind FastAPI without
            Triton, and one client with processors that halt.
    """
    report_progress(f"{model_id}: the graph alone")
    path = graph_of(repository, model_id)
    with ExitStack() as stack:
        enter = stack.enter_context
        limits = enter(_best_graphs(raw_graph_of(repository, model_id)))
        batch, threads = limits.setting
        work = Path(enter(tempfile.TemporaryDirectory(prefix="vitriton-bench-")))
        baseline = in_process_baseline(path, available_cpus(), threads, batch)
        starts = [vitriton([model_id], repository, work), *((baseline,) if in_depth else ())]
        servers = enter(running(starts))
        for server in servers:
            measure(server, model_id, small, closed(CONCURRENCY, SECONDS / 2))
        found: dict[str, Any] = {"graph_setting": {"batch": batch, "threads": threads}}
        if in_depth and can_keep_awake():
            report_progress(f"{model_id}, one client, with processors that halt")
            found["halting"] = _one_client(limits.of_one, servers[:1], model_id, small, ROUNDS)
        with processors_awake():
            found |= _full_load(limits.of_batch, servers, model_id, small)
            report_progress(f"{model_id}, one client")
            number = _SHORT_ROUNDS if in_depth else ROUNDS
            found |= _one_client(limits.of_one, servers, model_id, small, number)
            if in_depth:
                report_progress(f"{model_id}: the exported graph alone")
                found["exported_graph"] = _graph(path, batch, threads)
    return found


class _Limits(NamedTuple):
    setting: "_Setting"
    """The batch size and threads with the most images a second."""
    of_batch: LoneGraph
    """The graph at this setting."""
    of_one: LoneGraph
    """The graph with the fastest answer for one image."""


@contextmanager
def _best_graphs(path: Path) -> Iterator[_Limits]:
    """Measure a graph at all settings, and keep the best ones to be measured again."""
    with ExitStack() as stack:
        graphs = [
            (setting, stack.enter_context(lone_graph(path, *setting))) for setting in _settings()
        ]
        with processors_awake():
            probes = [(graph.measure(_GRAPH_SECONDS), setting, graph) for setting, graph in graphs]
        _, setting, of_batch = max(probes, key=lambda probe: probe[0]["images_per_s"])
        alone = [probe for probe in probes if probe[1].batch == 1]
        _, _, of_one = min(alone, key=lambda probe: probe[0]["p50_ms"])
        yield _Limits(setting, of_batch, of_one)


def _full_load(
    graph: LoneGraph, servers: list[Server], model_id: str, small: Path
) -> dict[str, Any]:
    """Rounds of the graph alone and of each server under many clients."""
    speeds = []
    rounds: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
    for n in range(ROUNDS):
        report_progress(f"{model_id}, round {n + 1} of {ROUNDS}")
        speeds.append(graph.measure(SECONDS)["images_per_s"])
        for server in servers:
            measured = measure(server, model_id, small, closed(CONCURRENCY, SECONDS))
            rounds[server.name].append(asdict(measured))
    return {"graph_images_per_s": speeds, "rounds": rounds}


def _one_client(
    graph: LoneGraph, servers: list[Server], model_id: str, small: Path, rounds: int
) -> dict[str, Any]:
    alone = []
    behind: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        alone.append(graph.measure(_ONE_CLIENT_SECONDS)["p50_ms"])
        for server in servers:
            measured = measure(server, model_id, small, closed(1, _ONE_CLIENT_SECONDS))
            behind[server.name].append(asdict(measured))
    return {"graph_single_ms": alone, "one_client": behind}


def _graph(path: Path, batch: int, threads: int) -> dict[str, list[float]]:
    """Measure a graph alone, at the setting that is best for transformers' graph."""
    with lone_graph(path, batch, threads) as full, lone_graph(path, 1, available_cpus()) as single:
        rounds = [
            (full.measure(_GRAPH_SECONDS), single.measure(_GRAPH_SECONDS)) for _ in range(ROUNDS)
        ]
    return {
        "images_per_s": [speed["images_per_s"] for speed, _ in rounds],
        "single_ms": [speed["p50_ms"] for _, speed in rounds],
    }


class _Setting(NamedTuple):
    batch: int
    threads: int


def _settings() -> list[_Setting]:
    # As many threads as processors, or half as many: no other number was ever best, and with two
    # processors only the first.
    cpus = available_cpus()
    threads = [cpus] if cpus <= 2 else [cpus // 2, cpus]
    return [_Setting(batch, n) for batch in (1, 8, 16) for n in threads]


def image_modes(repository: Path, large: Path) -> dict[str, Any]:
    """Measure the gateway's CPU for a large photograph in each image mode."""
    found: dict[str, list[Measured]] = {mode: [] for mode in get_args(DecodeMode)}
    with ExitStack() as stack:
        enter = stack.enter_context
        report_progress("image modes, 4000x3000")
        starts = [_gateway(mode, repository) for mode in found]
        servers = dict(zip(found, enter(running(starts)), strict=True))
        enter(processors_awake())
        for _ in range(_SHORT_ROUNDS):
            for mode, server in servers.items():
                found[mode].append(measure(server, NULL, large, closed(4, _LARGE_SECONDS)))
    return {mode: [asdict(m) for m in rounds] for mode, rounds in found.items()}


@contextmanager
def _gateway(mode: str, repository: Path) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory(prefix="vitriton-bench-") as work,
        vitriton([NULL], repository, Path(work), GATEWAY_DECODE=mode) as server,
    ):
        yield server


def main() -> None:
    """Measure everything and write the report."""
    parser = argparse.ArgumentParser(description="Measure Vitriton and its limits.")
    parser.add_argument("--name", default="cpu", help="the report is bench/results/NAME.*")
    options = parser.parse_args()
    if not (_DEMO / "model.safetensors").exists():
        raise SystemExit("bench: the demo model is not here; `make bench` trains it first")
    has_bf16 = cpu_has_bf16()
    repository = (WORK / "models").resolve()
    prepare(repository, bench_models(has_bf16=has_bf16))
    small, large = (write_picture(WORK, size).resolve() for size in (SMALL, LARGE))
    start = monotonic()
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "decoding": decoding(small, large),
        "null": null_model(repository, small),
        "tiny": real_model(repository, TINY, small, in_depth=True),
        "base": real_model(repository, BASE, small),
        "image_modes": image_modes(repository, large),
    }
    if has_bf16:
        report["base_bf16"] = real_model(repository, BASE_BF16, small)
    report_progress("accuracy of the image modes")
    report["accuracy"] = run_json(["-m", "bench.accuracy", "--demo", str(_DEMO)])["rows"]
    report["seconds"] = monotonic() - start
    write_report(Path("bench/results"), options.name, report)
    report_progress(f"done in {report['seconds']:.0f} s: bench/results/{options.name}.md")


if __name__ == "__main__":
    main()
