"""The report of a run on a GPU: promises, tables, and what is missing."""

from typing import Any

import pytest

from bench.gpu.figures import promises
from bench.gpu.page import markdown


def _load(clients: int, images_per_s: float, p50_ms: float = 5.0) -> dict[str, Any]:
    return {
        "clients": clients,
        "requests_per_s": images_per_s,
        "p50_ms": p50_ms,
        "p99_ms": 2 * p50_ms,
        "errors": 0,
        "mean_batch": 30.0,
        "cpu_ms": {"gateway": 0.4, "tritonserver": 0.1, "stub": 0.2, "runner": 0.0},
        "client_cpu_ms": 0.05,
        "triton_ms": {"queue": 0.1, "compute_infer": 0.8},
        "gpu": {"utilisation_percent": 97.0, "power_w": 600.0, "memory_mib": 3200.0},
        "connections": [],
    }


def _report() -> dict[str, Any]:
    speeds = {"images_per_s": 9000.0, "ms": 14.0}
    steps: dict[str, Any] = {
        "jpegs": {
            "ready_s": 12.5,
            **{str(n): _load(n, 8000) for n in (512, 256, 8)},
            "1": _load(1, 250, p50_ms=3.25),
        },
        "graph": {
            "rows": [
                {"kind": "TorchScript", "batch": 128, "alone": speeds, "with_copies": speeds},
                {
                    "kind": "CUDA graph",
                    "batch": 64,
                    "alone": speeds,
                    "with_copies": speeds | {"images_per_s": 10_000.0},
                },
                {"kind": "CUDA graph", "batch": 128, "error": "out of memory"},
            ]
        },
        "one_client": {"model": _load(1, 250) | {"gateway_ms": {"decode": 0.1, "infer": 2.0}}},
    }
    return {
        "date": "2026-11-28",
        "plan": {"preset": "vit-base", "precision": "fp16", "max_batch_size": 128, "load_s": 3.0},
        "machine": {"gpu": "NVIDIA H200", "processors": 16},
        "sent": {"file": "500x375.jpg", "bytes": 67589},
        "steps": {name: {"figures": figures, "seconds": 1.0} for name, figures in steps.items()},
    }


def _verdicts(report: dict[str, Any]) -> list[tuple[float, bool] | None]:
    return [
        None if promise is None else (promise.measured, promise.is_kept)
        for _, promise in promises(report)
    ]


def test_promises_are_held_against_the_fastest_graph_with_copies() -> None:
    assert _verdicts(_report()) == [
        (0.8, True),
        (0.8, True),
        (3.25, True),
        (8000, True),
        (12.5, False),
    ]


@pytest.mark.parametrize(
    ("clients", "place"), [pytest.param("256", 0, id="256"), pytest.param("512", 1, id="512")]
)
def test_share_below_the_promise_is_not_kept(clients: str, place: int) -> None:
    report = _report()
    report["steps"]["jpegs"]["figures"][clients]["requests_per_s"] = 7900.0
    assert _verdicts(report)[place] == (0.79, False)


def test_missing_figure_has_no_verdict() -> None:
    report = _report()
    del report["steps"]["graph"], report["steps"]["jpegs"]["figures"]["8"]

    assert _verdicts(report) == [None, None, (3.25, True), None, (12.5, False)]
    page = list(markdown(report))
    assert "| JPEG to label, 8 clients: images/s | not measured | – | – |" in page


def test_page_shows_each_load() -> None:
    page = "\n".join(markdown(_report()))
    assert (
        "| 512 | 8000 | 0.80 | 5.0 | 10.0 | 0 | 30.0"
        " | gateway 0.400, tritonserver 0.100, stub 0.200 | 5.6 | 500 | 97 | 600 | 3200 | – |"
    ) in page
    assert page.index("| 8 | 8000 ") < page.index("| 256 | 8000 ")
    assert "would keep 4.0 cores busy in the gateway and 3.0 in Triton" in page


def test_one_client_has_parts_that_add_up() -> None:
    page = list(markdown(_report()))
    for line in (
        "| mean, end to end | 4.00 |",
        "| gateway: decode | 0.10 |",
        "| Triton: compute_infer | 0.80 |",
        "| gateway: infer, beyond Triton's parts | 1.10 |",
        "| HTTP, and all else | 1.90 |",
    ):
        assert line in page


def test_failed_step_is_on_the_page() -> None:
    report = _report()
    report["steps"]["pixels"] = {"figures": {}, "error": "StepTimedOut: too long", "seconds": 80.0}
    page = list(markdown(report))
    assert "| pixels | 80.0 | StepTimedOut: too long |" in page
    assert "| CUDA graph | 128 | – | – | – | – | out of memory |" in page


def test_run_without_figures_has_a_page() -> None:
    report = _report() | {"steps": {}}
    assert _verdicts(report) == [None] * 5
    assert "## Promises" in "\n".join(markdown(report))
