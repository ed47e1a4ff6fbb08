"""Compare two or more checkouts of this project under the same load, in turn, in one run.

    git worktree add ../before HEAD
    python -m bench.compare before=../before now=.
    python -m bench.compare now=. three=.,GATEWAY_CACHE_BYTES=0 --model bench/vit-tiny

The speed of a machine changes by more than a few percent from minute to minute, so ratios are taken
within a round. Each argument is a name, the folder of a checkout, and environment variables after
commas; `in-process` is the baseline without Triton. Models and pictures are those of `make bench`.
`REPOSITORY=DIR` among the settings is the model repository of that server, for instance one that an
older exporter has written.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Final

from bench.idle import processors_awake
from bench.measure import Measured, closed, floor, measure
from bench.models import NULL, WORK, bench_models, graph_of, prepare
from bench.pictures import LARGE, SMALL, write_picture
from bench.servers import Server, in_process_baseline, vitriton
from exporter.precision import cpu_has_bf16
from gateway.runtime.processors import available_cpus

_SIZES: Final = {"small": SMALL, "large": LARGE}
_IN_PROCESS: Final = "in-process"
_REPOSITORY: Final = "REPOSITORY"
# For a model that computes: `make bench` finds no larger batch faster.
_MAX_BATCH: Final = 16
_KINDS: Final = ("gateway", "tritonserver", "stub", "server")


def _parse_server(
    what: str, model_id: str, repository: Path
) -> tuple[str, AbstractContextManager[Server]]:
    """Parse `NAME=FOLDER[,VARIABLE=VALUE...]` into the name and the server to start."""
    if what == _IN_PROCESS:
        return what, _in_process(graph_of(repository, model_id), is_null=model_id == NULL)
    name, found, rest = what.partition("=")
    folder, *settings = rest.split(",")
    if not found or not (Path(folder) / "gateway").is_dir():
        raise SystemExit(f"bench: {what}: expected NAME=FOLDER of a checkout, or {_IN_PROCESS}")
    environment = dict(setting.split("=", 1) for setting in settings)
    repository = Path(environment.pop(_REPOSITORY, repository)).resolve()
    root = Path(folder).resolve()
    return name, vitriton([model_id], repository, root, PYTHONPATH=str(root), **environment)


def _in_process(graph: Path, *, is_null: bool) -> AbstractContextManager[Server]:
    cpus = available_cpus()
    if is_null:
        return in_process_baseline(graph, cpus)
    return in_process_baseline(graph, cpus, threads=cpus, max_batch=_MAX_BATCH)


def compare(options: argparse.Namespace) -> dict[str, list[Measured]]:
    """Measure all rounds of each server; print the CPU cost of decoding before each round."""
    repository = (WORK / "models").resolve()
    prepare(repository, bench_models(has_bf16=cpu_has_bf16()))
    picture = write_picture(WORK, _SIZES[options.picture]).resolve()
    load = closed(options.concurrency, options.seconds)
    rounds: dict[str, list[Measured]] = {}
    with contextlib.ExitStack() as stack:
        if options.awake and not stack.enter_context(processors_awake()):
            raise SystemExit("bench: --awake takes root, and idle processors that can spin")
        servers = {}
        for what in options.what:
            name, starting = _parse_server(what, options.model, repository)
            servers[name] = stack.enter_context(starting)
            measure(servers[name], options.model, picture, closed(options.concurrency, 1.0))
        for n in range(options.rounds):
            cpu_ms = floor(picture, available_cpus()).cpu_ms
            print(f"round {n + 1}: decoding takes {cpu_ms:.2f} ms", file=sys.stderr, flush=True)
            # Each round starts with another server.
            order = list(servers.items())
            for name, server in order[n % len(order) :] + order[: n % len(order)]:
                rounds.setdefault(name, []).append(measure(server, options.model, picture, load))
    return {name: rounds[name] for name in servers}


def table(rounds: dict[str, list[Measured]]) -> Sequence[str]:
    """A table of ratios to the first server, medians over the rounds, with the absolute figures."""
    first = next(iter(rounds.values()))
    lines = ["| server | requests/s | p50 | CPU | CPU ms a request | errors |", "|---" * 6 + "|"]
    for name, found in rounds.items():
        speed, p50, cpu = (
            median(value(ours) / value(theirs) for ours, theirs in zip(found, first, strict=True))
            for value in (lambda m: m.requests_per_s, lambda m: m.p50_ms, _cpu_ms)
        )
        parts = ", ".join(
            f"{kind} {median(m.cpu_ms[kind] for m in found):.3f}"
            for kind in _KINDS
            if kind in found[0].cpu_ms
        )
        rate = median(m.requests_per_s for m in found)
        latency = median(m.p50_ms for m in found)
        lines.append(
            f"| {name} | {speed:.3f} ({rate:.1f}) | {p50:.3f} ({latency:.1f} ms) | {cpu:.3f}"
            f" | {parts} | {sum(m.errors for m in found)} |"
        )
    return lines


def _cpu_ms(measured: Measured) -> float:
    return sum(measured.cpu_ms.get(kind, 0.0) for kind in _KINDS)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Compare checkouts under the same load.")
    parser.add_argument("what", nargs="+", help=f"NAME=FOLDER[,VARIABLE=VALUE...] or {_IN_PROCESS}")
    parser.add_argument("--model", default=NULL, help="one of bench/models.py")
    parser.add_argument("--picture", choices=_SIZES, default="small")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--awake", action="store_true", help="keep idle processors from halting")
    print("\n".join(table(compare(parser.parse_args()))))


if __name__ == "__main__":
    main()
