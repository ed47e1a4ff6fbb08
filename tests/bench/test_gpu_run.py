"""A run on a GPU keeps the figures it has, whatever happens to a step."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import run as gpu_run
from bench.gpu.plan import QUICK, load_processes
from bench.gpu.run import Report, card_name
from bench.gpu.stacks import Stacks
from bench.gpu.steps import STEPS, Bench, Figures, Step

FACTS: dict[str, Any] = {
    "date": "2026-11-28",
    "plan": {"preset": "vit-tiny", "precision": "fp32", "max_batch_size": 4, "load_s": 0.5},
    "machine": {"processors": 2},
    "sent": {"file": "picture.jpg", "bytes": 7},
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    stacks = Stacks(QUICK, tmp_path, tmp_path)
    return Bench(QUICK, tmp_path, tmp_path, tmp_path / "picture.jpg", stacks)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path, "gpu-test", FACTS)


def _steps(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gpu-test.json").read_text())["steps"]
    return found


def _ends_in(error: BaseException) -> Callable[[Bench], Figures]:
    def run(_: Bench) -> Figures:
        yield "first", 1
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(RuntimeError("first\nthe reason\n"), "RuntimeError: the reason", id="lines"),
        # What measures without a server ends the process for a user of `make bench`.
        pytest.param(SystemExit("bench: failed"), "SystemExit: bench: failed", id="exit"),
        pytest.param(AssertionError(), "AssertionError", id="no-message"),
    ],
)
def test_failed_step_keeps_its_figures_and_its_error(
    error: BaseException, expected: str, bench: Bench, report: Report, tmp_path: Path
) -> None:
    report.run(Step("failing", _ends_in(error), 10), bench, 10)
    report.run(Step("next", lambda _: iter([("second", 2)]), 10), bench, 10)

    steps = _steps(tmp_path)
    assert steps["failing"]["figures"] == {"first": 1}
    assert steps["failing"]["error"] == expected
    assert steps["next"]["figures"] == {"second": 2}
    assert "error" not in steps["next"]


def test_step_that_takes_too_long_is_interrupted(
    bench: Bench, report: Report, tmp_path: Path
) -> None:
    def waits(_: Bench) -> Figures:
        yield "first", 1
        threading.Event().wait(60)

    report.run(Step("slow", waits, 10), bench, 0.2)

    assert _steps(tmp_path)["slow"]["figures"] == {"first": 1}
    assert _steps(tmp_path)["slow"]["error"].startswith("StepTimedOut")


def test_figures_are_written_before_the_step_ends(
    bench: Bench, report: Report, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def looks(_: Bench) -> Figures:
        yield "first", 1
        seen.append(_steps(tmp_path)["looking"]["figures"])

    report.run(Step("looking", looks, 10), bench, 10)
    assert seen == [{"first": 1}]


def test_without_a_model_no_stack_is_started(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="the export failed"):
        bench.stacks.get("jpegs")


def test_steps_without_time_are_left_out(bench: Bench, report: Report, tmp_path: Path) -> None:
    gpu_run.run(report, bench, budget_s=0)

    steps = _steps(tmp_path)
    assert list(steps) == [step.name for step in STEPS]
    assert {step["error"] for step in steps.values()} == {"no time is left of 0 s"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("NVIDIA H200", "h200", id="h200"),
        pytest.param("NVIDIA H100 80GB HBM3", "h100-80gb-hbm3", id="h100"),
        pytest.param("NVIDIA A100-SXM4-40GB", "a100-sxm4-40gb", id="a100"),
        pytest.param("NVIDIA", "unknown", id="no-name"),
    ],
)
def test_card_names_the_files(name: str, expected: str) -> None:
    assert card_name(name) == expected


@pytest.mark.parametrize(("clients", "expected"), [(1, 1), (64, 1), (65, 2), (256, 4), (512, 4)])
def test_many_clients_come_from_several_processes(clients: int, expected: int) -> None:
    assert load_processes(clients) == expected
