"""What a run on a GPU has found. A step may be missing or in part, and so may each figure."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from bench.promise import Promise, at_least, at_most


def figures(report: dict[str, Any], step: str) -> dict[str, Any]:
    """The figures of a step, of which some may be missing."""
    found: dict[str, Any] = report["steps"].get(step, {}).get("figures", {})
    return found


def rows(report: dict[str, Any], step: str) -> list[dict[str, Any]]:
    """The rows of a step that measured without a server."""
    found: list[dict[str, Any]] = figures(report, step).get("rows", [])
    return found


def levels(report: dict[str, Any], step: str) -> dict[int, dict[str, Any]]:
    """The loads of a step that ranges over numbers: of clients, workers or instances."""
    found = {int(n): measured for n, measured in figures(report, step).items() if n.isdecimal()}
    return dict(sorted(found.items()))


def graph_limit(report: dict[str, Any]) -> float | None:
    """Most images a second of the graph alone, with copies to and from the GPU."""
    found = (row["with_copies"]["images_per_s"] for row in rows(report, "graph") if "alone" in row)
    return max(found, default=None)


def engine_limit(report: dict[str, Any]) -> float | None:
    """Most images a second of the JPEG decoder of the fastest kind."""
    found = (row["images_per_s"] for row in rows(report, "jpeg_decoders") if "images_per_s" in row)
    return max(found, default=None)


def floor_limit(report: dict[str, Any]) -> float | None:
    """Images a second that all processors decode."""
    found: float | None = figures(report, "decode_floor").get("images_per_s")
    return found


LIMITS: Final[dict[str, Callable[[dict[str, Any]], float | None]]] = {
    "the graph alone, with copies": graph_limit,
    "JPEG decoders of nvImageCodec alone": engine_limit,
    "decoding on all processors alone": floor_limit,
}


def promises(report: dict[str, Any]) -> Iterator[tuple[str, Promise | None]]:
    """All figures of the run that have a bound; none for one that was not measured."""
    loads = levels(report, "jpegs")
    limit = graph_limit(report)
    for clients in (256, 512):
        what = f"JPEG to label, {clients} clients: images/s / the graph alone with copies"
        share = loads[clients]["requests_per_s"] / limit if limit and clients in loads else None
        yield what, None if share is None else at_least(what, share, 0.8)
    what = "JPEG to label, one client: p50, ms"
    yield what, at_most(what, loads[1]["p50_ms"], 3.5) if 1 in loads else None
    what = "JPEG to label, 8 clients: images/s"
    yield what, at_least(what, loads[8]["requests_per_s"], 2000) if 8 in loads else None
    what = "seconds until `vitriton serve` is ready"
    ready_s = figures(report, "jpegs").get("ready_s")
    yield what, None if ready_s is None else at_most(what, ready_s, 12)
