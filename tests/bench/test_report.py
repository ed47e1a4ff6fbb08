import json
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import page as gpu_page
from bench.report import OURS, markdown, promises

# `make bench` does not overwrite this report.
_REPORT = Path("bench/results/cpu-intel-xeon.json")
_ONE_CLIENT = "ViT-tiny, one client: p50 beyond the graph's, ms"


@pytest.fixture
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_REPORT.read_text())
    return found


def _one_client(report: dict[str, Any]) -> float:
    return next(promise.measured for promise in promises(report) if promise.what == _ONE_CLIENT)


def test_slower_round_leaves_differences_as_they_are(report: dict[str, Any]) -> None:
    before = _one_client(report)
    tiny = report["tiny"]
    # A machine that changes its speed does this; the difference of two medians would change.
    for n, slower in enumerate((50.0, 30.0, 0.0, 20.0, 0.0)):
        tiny["graph_single_ms"][n] += slower
        tiny["one_client"][OURS][n]["p50_ms"] += slower
    assert _one_client(report) == pytest.approx(before)


def test_ratios_are_taken_within_a_round(report: dict[str, Any]) -> None:
    """The ratio of the two medians would be 1.2."""
    null = report["null"]
    null["floors_ms"] = [1.0, 2.0, 4.0]
    for measured, cpu_ms in zip(null["rounds"][OURS], (1.5, 2.4, 5.2), strict=True):
        measured["cpu_ms"]["gateway"] = cpu_ms
    assert promises(report)[0].measured == pytest.approx(1.3)


def test_slower_server_is_seen(report: dict[str, Any]) -> None:
    before = _one_client(report)
    for measured in report["tiny"]["one_client"][OURS]:
        measured["p50_ms"] += 2.5
    assert _one_client(report) == pytest.approx(before + 2.5)


def test_halting_processors_have_a_verdict_of_their_own(report: dict[str, Any]) -> None:
    before = promises(report)
    null, halting = report["null"], report["null"]["halting"]
    null["floors_ms"] = [1.0 for _ in null["floors_ms"]]
    halting["floors_ms"] = [2.0 for _ in halting["floors_ms"]]
    for measured in null["rounds"][OURS]:
        measured["cpu_ms"]["gateway"] = 1.25
    for measured in halting["rounds"][OURS]:
        measured["cpu_ms"]["gateway"] = 19.75
    gateway = promises(report)[0]
    assert (gateway.measured, gateway.is_kept) == (1.25, True)
    assert (gateway.halting, gateway.is_kept_halting) == (9.875, False)
    assert "| 1.25 | ≤ 1.4 | yes | 9.88, **no** |" in "\n".join(markdown("cpu", report))
    assert promises(report)[2:] == before[2:]


def test_one_client_with_halting_processors_is_a_difference_too(report: dict[str, Any]) -> None:
    before = _one_client(report)
    halting = report["tiny"]["halting"]
    # The difference of the two medians would be 7.
    halting["graph_single_ms"] = [10.0, 50.0, 20.0, 40.0, 30.0]
    behind = [13.5, 53.5, 23.5, 37.0, 60.0]
    for measured, p50_ms in zip(halting["one_client"][OURS], behind, strict=True):
        measured["p50_ms"] = p50_ms
    found = next(promise for promise in promises(report) if promise.what == _ONE_CLIENT)
    assert found.halting == pytest.approx(3.5)
    assert found.measured == before


def test_report_says_that_processors_halted(report: dict[str, Any]) -> None:
    del report["null"]["halting"], report["tiny"]["halting"]
    page = "\n".join(markdown("cpu", report))
    assert "Idle processors halted" in page
    assert {promise.halting for promise in promises(report)} == {None}


@pytest.mark.parametrize("file", sorted(_REPORT.parent.glob("*.json")), ids=lambda f: f.stem)
def test_page_is_generated_from_the_figures(file: Path) -> None:
    found = json.loads(file.read_text())
    lines = gpu_page.markdown(found) if file.stem.startswith("gpu") else markdown(file.stem, found)
    assert "\n".join(lines) + "\n" == file.with_suffix(".md").read_text()
