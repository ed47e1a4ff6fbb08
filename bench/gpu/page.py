"""The page of a run on a GPU: the promises first, then the tables."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from bench.gpu.figures import LIMITS, figures, graph_limit, levels, promises, rows
from bench.promise import KEPT, Promise

_TITLES: Final = {"jpegs": "JPEGs sent to Triton", "pixels": "Pixels sent to Triton"}
_GATEWAY: Final = "gateway"
# The runner of `vitriton serve` only waits.
_KINDS: Final = ("gateway", "tritonserver", "stub")
_TRITON: Final = ("queue", "compute_input", "compute_infer", "compute_output")
_NOTHING: Final = "–"


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table; a cell that is None shows as a dash, and without lines there is no table."""
    found = [[_NOTHING if cell is None else _escaped(cell) for cell in line] for line in lines]
    if found:
        for line in (list(head), ["---"] * len(head), *found):
            yield f"| {' | '.join(line)} |"


def _escaped(cell: object) -> str:
    return str(cell).replace("|", "\\|")


def markdown(report: dict[str, Any]) -> Iterator[str]:
    """The report as a page."""
    plan = report["plan"]
    yield f"# Measured on {report['date']}\n"
    yield ", ".join(f"{key} {value}" for key, value in report["machine"].items()) + "."
    yield (
        f"{plan['preset']} with random weights, {plan['precision']}, batches of up to"
        f" {plan['max_batch_size']}; `{report['sent']['file']}` of {report['sent']['bytes']} bytes,"
        " and each request has other bytes."
    )
    yield f"Closed loops of {plan['load_s']:g} s on one GPU, one run."
    if report.get("picture") is not None:
        yield f"\n![images a second over clients]({report['picture']})"
    yield from _section(
        "Promises", ["figure", "measured", "promised", "kept"], map(_promise, promises(report))
    )
    yield from _limits(report)
    for step, title in _TITLES.items():
        yield from _loads(report, step, f"{title}, by clients", "clients")
        yield from _sizing(report, step)
        yield from _backend(report, step)
    yield from _one_client(report)
    for step, title in _TITLES.items():
        yield from _loads(report, f"workers_{step}", f"{title}, by workers", "workers")
    yield from _loads(report, "instances", "By instances of the model", "instances")
    yield from _graph(report)
    yield from _decoders(report)
    yield from _resizers(report)
    yield from _steps(report)


def _section(title: str, head: Sequence[str], lines: Iterable[Sequence[object]]) -> Iterator[str]:
    found = list(table(head, lines))
    if found:
        yield f"\n## {title}\n"
        yield from found


def _promise(row: tuple[str, Promise | None]) -> list[object]:
    what, promise = row
    if promise is None:
        return [what, "not measured", None, None]
    return [what, f"{promise.measured:.2f}", promise.bound_text, KEPT[promise.is_kept]]


def _limits(report: dict[str, Any]) -> Iterator[str]:
    found = [(what, limit(report)) for what, limit in LIMITS.items()]
    lines = [(what, f"{speed:.0f}") for what, speed in found if speed is not None]
    yield from _section("Limits", ["alone on the machine", "images/s"], lines)


def _loads(report: dict[str, Any], step: str, title: str, what: str) -> Iterator[str]:
    limit, cores = graph_limit(report), report["machine"]["processors"]
    head = [what, "images/s", "of the graph alone", "p50 ms", "p99 ms", "errors", "images a batch"]
    head += ["CPU ms an image", "cores busy", "images/s per core", "GPU %", "W", "MiB"]
    head += ["connections of each process"]
    lines = [_load(name, measured, limit, cores) for name, measured in levels(report, step).items()]
    yield from _section(title, head, lines)


def _load(name: int, m: dict[str, Any], limit: float | None, cores: int) -> list[object]:
    speed, gpu = m["requests_per_s"], m["gpu"] or {}
    cpu = {kind: m["cpu_ms"][kind] for kind in _KINDS if kind in m["cpu_ms"]}
    threads = m.get("decoding_threads")
    return [
        name if threads is None else f"{name}, each with {threads} decoding threads",
        f"{speed:.0f}",
        f"{speed / limit:.2f}" if limit else None,
        f"{m['p50_ms']:.1f}",
        f"{m['p99_ms']:.1f}",
        m["errors"],
        f"{m['mean_batch']:.1f}" if m["mean_batch"] else None,
        ", ".join(f"{kind} {ms:.3f}" for kind, ms in cpu.items()),
        f"{sum(cpu.values()) * speed / 1000:.1f}",
        f"{speed / cores:.0f}",
        _rounded(gpu.get("utilisation_percent")),
        _rounded(gpu.get("power_w")),
        _rounded(gpu.get("memory_mib")),
        " ".join(map(str, m["connections"])) or None,
    ]


def _rounded(figure: float | None) -> str | None:
    return None if figure is None else f"{figure:.0f}"


def _sizing(report: dict[str, Any], step: str) -> Iterator[str]:
    """The cores that a GPU needs before it, by the load with the most images a second."""
    limit, found = graph_limit(report), levels(report, step)
    if limit is None or not found:
        return
    best = max(found.values(), key=lambda m: float(m["requests_per_s"]))
    gateway = best["cpu_ms"].get(_GATEWAY, 0.0)
    triton = sum(best["cpu_ms"].get(kind, 0.0) for kind in _KINDS) - gateway
    yield (
        f"\nFor {limit:.0f} images/s, the graph's own speed, this mode would keep"
        f" {gateway * limit / 1000:.1f} cores busy in the gateway and {triton * limit / 1000:.1f}"
        f" in Triton, by the CPU of {best['clients']} clients."
        f" The load generator took {best['client_cpu_ms']:.3f} ms an image on the same cores."
    )


def _backend(report: dict[str, Any], step: str) -> Iterator[str]:
    """What the backend has logged, once for all instances that logged the same."""
    for line in dict.fromkeys(figures(report, step).get("backend", [])):
        yield f"\nTriton's log: {line}."


def _one_client(report: dict[str, Any]) -> Iterator[str]:
    found = figures(report, "one_client")
    columns = [_parts(measured) for measured in found.values()]
    if columns:
        lines = [[what, *(f"{c[what]:.2f}" for c in columns)] for what in columns[0]]
        title = "One client: where the milliseconds go"
        yield from _section(title, ["part, ms", *found], lines)
        yield from _graph_of_one(report)


def _parts(m: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of one request by part: the median, the mean, and what the mean consists of."""
    mean, stages, triton = 1000 / m["requests_per_s"], m["gateway_ms"], m["triton_ms"]
    outside_triton = stages.get("infer", 0.0) - sum(triton.values())
    return {
        "p50, end to end": m["p50_ms"],
        "mean, end to end": mean,
        "gateway: decode": stages.get("decode", 0.0),
        **{f"Triton: {part}": triton.get(part, 0.0) for part in _TRITON},
        "gateway: infer, beyond Triton's parts": outside_triton,
        "gateway: postprocess": stages.get("postprocess", 0.0),
        "HTTP, and all else": mean - sum(stages.values()),
    }


def _graph_of_one(report: dict[str, Any]) -> Iterator[str]:
    alone = {
        row["kind"]: row["with_copies"]["ms"]
        for row in rows(report, "graph")
        if row["batch"] == 1 and "with_copies" in row
    }
    if alone:
        parts = ", ".join(f"{ms:.2f} ms as {kind}" for kind, ms in alone.items())
        yield f"\nThe graph alone with copies takes {parts} for one image."
    yield "The parts are means; the null model's graph returns constants."


def _graph(report: dict[str, Any]) -> Iterator[str]:
    head = ["graph", "batch", "images/s alone", "ms", "images/s with copies", "ms", "error"]
    lines = []
    for row in sorted(rows(report, "graph"), key=lambda row: (row["kind"], row["batch"])):
        cells = [row["kind"], row["batch"]]
        for way in ("alone", "with_copies"):
            speed = row.get(way)
            cells += [f"{speed['images_per_s']:.0f}", f"{speed['ms']:.2f}"] if speed else [None] * 2
        lines.append([*cells, row.get("error")])
    yield from _section("The graph alone", head, lines)


def _decoders(report: dict[str, Any]) -> Iterator[str]:
    found = rows(report, "jpeg_decoders")
    speeds = [
        [row["decoder"], row["batch"], *_speed(row), row.get("error")]
        for row in found
        if "batch" in row
    ]
    head = ["decoder", "batch", "images/s", "CPU ms an image", "error"]
    yield from _section("nvImageCodec alone", head, speeds)
    levels_off = [
        [row["decoder"], row["kind"], *_difference(row), row.get("error")]
        for row in found
        if "kind" in row
    ]
    head = ["decoder", "JPEG", "largest difference", "mean", "error"]
    yield from _section("nvImageCodec against Pillow, grey levels", head, levels_off)


def _resizers(report: dict[str, Any]) -> Iterator[str]:
    found = rows(report, "resizers")
    speeds = [
        [row["way"], row["sizes"], row["batch"], *_speed(row)] for row in found if "batch" in row
    ]
    head = ["way", "batch of", "pictures", "images/s", "CPU ms an image"]
    yield from _section("Resizing on the device, bilinear", head, speeds)
    levels_off = [
        [row["way"], row.get("sizes"), row.get("filter"), *_difference(row), row.get("error")]
        for row in found
        if "batch" not in row
    ]
    head = ["way", "batch of", "filter", "largest difference", "mean", "error"]
    yield from _section("Resizing against Pillow, grey levels", head, levels_off)


def _speed(row: dict[str, Any]) -> list[object]:
    if "images_per_s" not in row:
        return [None, None]
    return [f"{row['images_per_s']:.0f}", f"{row['cpu_ms']:.3f}"]


def _difference(row: dict[str, Any]) -> list[object]:
    return [row["max"], f"{row['mean']:.4f}"] if "max" in row else [None, None]


def _steps(report: dict[str, Any]) -> Iterator[str]:
    lines = [
        [name, f"{step['seconds']:.1f}" if "seconds" in step else None, step.get("error")]
        for name, step in report["steps"].items()
    ]
    yield from _section("Steps of the run", ["step", "seconds", "error"], lines)
