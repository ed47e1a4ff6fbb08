"""Report a run: ratios against the figures that are promised, then absolute figures."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.promise import KEPT, Promise, at_least, at_most

OURS: Final = "vitriton"
_IN_PROCESS: Final = "FastAPI, tuned, in process"
_STACK: Final = ("gateway", "tritonserver", "stub")
_COLORS: Final = {
    "gateway": "#2b6cb0",
    "tritonserver": "#38a169",
    "stub": "#dd6b20",
    "server": "#718096",
}
_MARKDOWN: Final = "| {} | {} | {} | {} | {} |"
_IDLE: Final = {
    True: "Processors were kept awake: a shared host lends a halted processor to other guests, and"
    " it comes back late. What depends on halting was also measured with processors that halt,"
    " before the rest.",
    False: "Idle processors halted: keeping them awake takes root, /dev/cpu_dma_latency, and a"
    " kernel that lets them spin.",
}


def median_of(rounds: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> float:
    """Median of a figure over the rounds."""
    return median(value(round_) for round_ in rounds)


def promises(report: dict[str, Any]) -> list[Promise]:
    """All figures of the run that have a bound."""
    null, tiny = report["null"], report["tiny"]
    memory = null["memory"]
    fast, scaled = (_over_reference(report["image_modes"], mode) for mode in ("fast", "scaled"))
    growth = memory["end_mb"] - memory["half_way_mb"]

    def of_null(figure: Callable[[dict[str, Any]], float]) -> tuple[float, float | None]:
        return figure(null), figure(null["halting"]) if "halting" in null else None

    gateway, gateway_halting = of_null(lambda found: _over_floor(found, _gateway_cpu))
    stack, stack_halting = of_null(lambda found: _over_floor(found, _stack_cpu))
    tuned, tuned_halting = of_null(_over_tuned)
    one, one_halting = _beyond(tiny), _beyond(tiny["halting"]) if "halting" in tiny else None
    found = [
        at_most(
            "null model: CPU of the gateway / floor of decoding", gateway, 1.4, gateway_halting
        ),
        at_most("null model: CPU of gateway, Triton, stub / floor", stack, 1.7, stack_halting),
        at_least("null model: requests/s / FastAPI + pipeline", _over_pipeline(null), 2.5),
        at_least("null model: requests/s / tuned, in process", tuned, 0.9, tuned_halting),
        at_least("ViT-tiny: images/s / the graph alone", _share(tiny), 0.95),
        at_least("ViT-base: images/s / the graph alone", _share(report["base"]), 0.95),
        at_most("ViT-tiny, one client: p50 beyond the graph's, ms", one, 4, one_halting),
        at_most("4000x3000: CPU of fast / reference", fast, 0.6),
        at_most("4000x3000: CPU of scaled / reference", scaled, 0.2),
        at_most("gateway after 10,000 requests, MB resident", memory["end_mb"], 180),
        at_most("its growth over the last half, MB", growth, 5),
    ]
    if "base_bf16" in report:
        gain = _requests(report["base_bf16"], OURS) / _requests(report["base"], OURS)
        found.append(at_least("ViT-base: bf16 / fp32, images/s", gain, 1.6))
    return found


def _over_floor(null: dict[str, Any], cpu: Callable[[dict[str, Any]], float]) -> float:
    # Mode `fast` is the cheapest decoder and resizer within its tolerance.
    return _ratio(map(cpu, null["rounds"][OURS]), null["floors_ms"])


def _over_reference(modes: dict[str, list[dict[str, Any]]], mode: str) -> float:
    return _ratio(map(_gateway_cpu, modes[mode]), map(_gateway_cpu, modes["reference"]))


def _ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """Median of the ratios within a round; a change of the machine's speed affects both sides."""
    return float(median(a / b for a, b in zip(ours, theirs, strict=True)))


def _over_tuned(null: dict[str, Any]) -> float:
    return _ratio(_speeds(null, OURS), _speeds(null, _IN_PROCESS))


def _over_pipeline(null: dict[str, Any]) -> float:
    others = (name for name in null["rounds"] if "pipeline" in name)
    return min(_ratio(_speeds(null, OURS), _speeds(null, name)) for name in others)


def _requests(found: dict[str, Any], server: str) -> float:
    return float(median(_speeds(found, server)))


def _speeds(found: dict[str, Any], server: str) -> list[float]:
    return [measured["requests_per_s"] for measured in found["rounds"][server]]


def _gateway_cpu(measured: dict[str, Any]) -> float:
    return float(measured["cpu_ms"]["gateway"])


def _all_cpu(measured: dict[str, Any]) -> float:
    return float(sum(measured["cpu_ms"].values()))


def _stack_cpu(measured: dict[str, Any]) -> float:
    return float(sum(measured["cpu_ms"].get(kind, 0.0) for kind in _STACK))


def _share(model: dict[str, Any]) -> float:
    return _ratio(_speeds(model, OURS), model["graph_images_per_s"])


def _beyond(model: dict[str, Any], server: str = OURS) -> float:
    """Median of the differences within a round, in milliseconds."""
    pairs = zip(model["one_client"][server], model["graph_single_ms"], strict=True)
    return float(median(ours["p50_ms"] - alone for ours, alone in pairs))


def write_report(folder: Path, name: str, report: dict[str, Any]) -> None:
    """Write `NAME.json`, `NAME.md` and `NAME.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / f"{name}.md").write_text("\n".join(markdown(name, report)) + "\n")
    _draw(folder / f"{name}.png", report)


def markdown(name: str, report: dict[str, Any]) -> Iterator[str]:
    """The report as a page."""
    yield f"# Measured on {report['date']}"
    yield ""
    yield ", ".join(f"{key} {value}" for key, value in report["machine"].items()) + "."
    yield "Ratios hold elsewhere better than absolutes; all are medians of interleaved rounds."
    yield f"\n![CPU a request, null model]({name}.png)\n"
    yield _IDLE[is_awake(report)] + "\n"
    yield "## Promises\n"
    yield _MARKDOWN.format("figure", "measured", "promised", "kept", "with processors that halt")
    yield "|---" * 5 + "|"
    for promise in promises(report):
        halting = "–"
        if promise.halting is not None:
            halting = f"{promise.halting:.2f}, {KEPT[promise.is_kept_halting]}"
        yield _MARKDOWN.format(
            promise.what,
            f"{promise.measured:.2f}",
            promise.bound_text,
            KEPT[promise.is_kept],
            halting,
        )
    yield from _null_table(report)
    yield from _model_tables(report)
    yield from _tiny_table(report["tiny"])
    yield from _decode_tables(report)


def is_awake(report: dict[str, Any]) -> bool:
    """Whether processors were kept awake; if so, the run also has figures with halting ones."""
    return "halting" in report["null"]


def _null_table(report: dict[str, Any]) -> Iterator[str]:
    yield "\n## Null model, 500x375 JPEG, 32 clients\n"
    yield (
        "| server | requests/s | p50 ms | p99 ms | CPU ms a request | images a call"
        " | images a batch | MB resident | its peak | errors |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    null = report["null"]
    rows = list(null["rounds"].items())
    rows.append((f"{OURS}, one client", [null["one_client"]]))
    rows.append((f"{OURS}, open loop at {null['open_loop']['rate']:.0f}/s", [null["open_loop"]]))
    if is_awake(report):
        halting = null["halting"]
        rows += [(f"{name}, halting", rounds) for name, rounds in halting["rounds"].items()]
        rows.append((f"{OURS}, one client, halting", [halting["one_client"]]))
    for server, rounds in rows:
        yield _row(server, rounds)
    client = median_of(null["rounds"][OURS], lambda m: m["client_cpu_ms"])
    yield (
        f"\nThe floor, decoding and resizing alone with all processors busy at it, takes"
        f" {median(null['floors_ms']):.2f} ms of CPU a picture, measured in the same rounds."
    )
    yield f"The load generator itself takes {client:.3f} ms of CPU a request."


def _row(server: str, rounds: list[dict[str, Any]]) -> str:
    def text(key: str, form: str) -> str:
        values = [m[key] for m in rounds if m[key] is not None]
        return format(median(values), form) if values else "–"

    kinds = {kind for m in rounds for kind, cpu in m["cpu_ms"].items() if cpu > 0.01}
    cpu = ", ".join(
        f"{kind} {median_of(rounds, lambda m, k=kind: m['cpu_ms'].get(k, 0.0)):.2f}"  # type: ignore[misc]  # k
        for kind in sorted(kinds)
    )
    resident, peak = (sum(rounds[-1][key].values()) for key in ("resident_mb", "peak_mb"))
    return (
        f"| {server} | {text('requests_per_s', '.0f')} | {text('p50_ms', '.1f')}"
        f" | {text('p99_ms', '.1f')} | {cpu} | {text('mean_call', '.1f')}"
        f" | {text('mean_batch', '.1f')} | {resident:.0f} | {peak:.0f}"
        f" | {sum(m['errors'] for m in rounds)} |"
    )


def _model_tables(report: dict[str, Any]) -> Iterator[str]:
    yield "\n## Models with random weights, 32 clients\n"
    yield (
        "| model | images/s | graph alone, images/s | its batch and threads | images a batch"
        " | one client: p50 ms | graph alone, one image: ms | both with processors that halt |"
    )
    yield "|---" * 8 + "|"
    for key in ("tiny", "base", "base_bf16"):
        if key not in report:
            continue
        model = report[key]
        setting = model["graph_setting"]
        batch = median_of(model["rounds"][OURS], lambda m: m["mean_batch"])
        one, graph = _lone_image_ms(model)
        halting = "–"
        if "halting" in model:
            halting = "{:.1f}, {:.1f}".format(*_lone_image_ms(model["halting"]))
        yield (
            f"| {key} | {_requests(model, OURS):.1f} | {median(model['graph_images_per_s']):.1f}"
            f" | {setting['batch']:g} x {setting['threads']:g} | {batch:.1f}"
            f" | {one:.1f} | {graph:.1f} | {halting} |"
        )


def _lone_image_ms(model: dict[str, Any]) -> tuple[float, float]:
    """Median milliseconds for one image, behind the whole stack and in the graph alone."""
    behind = median_of(model["one_client"][OURS], lambda m: m["p50_ms"])
    return behind, float(median(model["graph_single_ms"]))


_EXPORTED: Final = "exported_graph"


def _tiny_table(tiny: dict[str, Any]) -> Iterator[str]:
    yield "\n## ViT-tiny with Triton and without\n"
    yield " ".join(
        [
            "The promises are held against the graph of transformers.",
            *(
                ["`vitriton export` leaves out of it what no logit depends on."]
                if _EXPORTED in tiny
                else []
            ),
            "In process means the graph that ours serves and the same decoder behind FastAPI,"
            " without Triton: what the way to Triton and back costs a model that computes.\n",
        ]
    )
    yield (
        "| server | 32 clients: images/s | CPU ms an image | one client: p50 ms"
        " | beyond the graph alone, ms | errors |"
    )
    yield "|---" * 6 + "|"
    yield _graph_row("the graph alone", tiny["graph_images_per_s"], tiny["graph_single_ms"])
    if _EXPORTED in tiny:
        alone = tiny[_EXPORTED]
        yield _graph_row("the graph alone, as exported", alone["images_per_s"], alone["single_ms"])
    for server, rounds in tiny["rounds"].items():
        one = tiny["one_client"][server]
        yield (
            f"| {server} | {_requests(tiny, server):.1f} | {median_of(rounds, _all_cpu):.1f}"
            f" | {median_of(one, lambda m: m['p50_ms']):.1f} | {_beyond(tiny, server):.1f}"
            f" | {sum(m['errors'] for m in [*rounds, *one])} |"
        )


def _graph_row(name: str, images_per_s: list[float], single_ms: list[float]) -> str:
    return f"| {name} | {median(images_per_s):.1f} | – | {median(single_ms):.1f} | – | – |"


def _decode_tables(report: dict[str, Any]) -> Iterator[str]:
    yield "\n## Decoding and resizing to 224x224 alone, CPU ms\n"
    yield "| way | 500x375 | 4000x3000 |"
    yield "|---|---|---|"
    small, large = report["decoding"]["small"], report["decoding"]["large"]
    for way, cost in small.items():
        yield f"| {way} | {cost:.2f} | {large[way]:.1f} |"
    yield "\n## Image modes against `transformers.pipeline`\n"
    yield (
        "| case | mode | pictures | max pixel difference | mean | max \\|Δscore\\|"
        " | best label the same |"
    )
    yield "|---|---|---|---|---|---|---|"
    for row in report["accuracy"]:
        yield (
            f"| {row['case']} | {row['mode']} | {row['pictures']}"
            f" | {row['max_pixel_difference']} | {row['mean_pixel_difference']:.3f}"
            f" | {row['max_abs_score_difference']:.1e} | {row['top1_agreement']:.1%} |"
        )


def _draw(path: Path, report: dict[str, Any]) -> None:
    """Stacked CPU a request by kind of process, with the floor as a line."""
    mpl.use("Agg")
    rounds = report["null"]["rounds"]
    names = list(rounds)
    figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
    left = [0.0] * len(names)
    for kind, color in _COLORS.items():
        costs = [median_of(rounds[n], lambda m, k=kind: m["cpu_ms"].get(k, 0.0)) for n in names]  # type: ignore[misc]  # k
        axes.barh(names, costs, left=left, color=color, label=kind)
        left = [a + b for a, b in zip(left, costs, strict=True)]
    floor = median(report["null"]["floors_ms"])
    axes.axvline(floor, color="#c53030", linestyle="--", label="decode + resize alone")
    idle = "kept awake" if is_awake(report) else "that halt when idle"
    axes.set_xlabel(
        f"CPU milliseconds a request, null model, 500x375 JPEG, 32 clients\nprocessors {idle}"
    )
    axes.invert_yaxis()
    axes.legend(loc="upper right")
    figure.savefig(path, dpi=110)
