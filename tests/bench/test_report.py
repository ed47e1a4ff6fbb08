import json
from pathlib import Path
from typing import Any

import pytest

from bench.report import markdown, promises

_REPORT = Path("bench/results/cpu.json")
_ONE_CLIENT = "ViT-tiny, one client: p50 beyond the graph's, ms"


@pytest.fixture
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_REPORT.read_text())
    return found


def _one_client(report: dict[str, Any]) -> float:
    return next(promise.measured for promise in promises(report) if promise.what == _ONE_CLIENT)


def test_what_slows_both_in_a_round_changes_no_difference(report: dict[str, Any]) -> None:
    before = _one_client(report)
    tiny = report["tiny"]
    # As a machine does that changes its speed; medians of each alone would move apart.
    for n, slower in enumerate((50.0, 30.0, 0.0, 20.0, 0.0)):
        tiny["graph_single_ms"][n] += slower
        tiny["one_client"][n]["p50_ms"] += slower
    assert _one_client(report) == pytest.approx(before)


def test_what_slows_ours_alone_is_seen(report: dict[str, Any]) -> None:
    before = _one_client(report)
    for measured in report["tiny"]["one_client"]:
        measured["p50_ms"] += 2.5
    assert _one_client(report) == pytest.approx(before + 2.5)


def test_what_a_pause_costs_is_shown_and_excuses_nothing(report: dict[str, Any]) -> None:
    before = promises(report)
    null, tiny = report["null"], report["tiny"]
    null["rested_floors_ms"] = [3 * floor for floor in null["floors_ms"]]
    tiny["graph_rested_ms"] = [512.5 for _ in tiny["graph_rested_ms"]]
    page = "\n".join(markdown("cpu", report))
    assert "takes 3.00 times as much" in page
    assert "| 512.5 |" in page
    assert promises(report) == before


def test_the_page_is_that_of_the_figures(report: dict[str, Any]) -> None:
    page = "\n".join(markdown("cpu", report)) + "\n"
    assert page == _REPORT.with_suffix(".md").read_text()
