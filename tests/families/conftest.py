"""Collect the figures of all family tests, and write them to the file of `--families-table`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack import ROOT


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Iterator[list[dict[str, Any]]]:
    """The rows of the table, in the order of the tests."""
    rows: list[dict[str, Any]] = []
    yield rows
    target = pytestconfig.getoption("--families-table")
    if target:
        families = list(dict.fromkeys(row["family"] for row in rows))
        rows.sort(key=lambda row: families.index(row["family"]))
        Path(target).write_text(json.dumps(rows, indent=1) + "\n")


@pytest.fixture(scope="session")
def timm_path(torchvision_site: Path) -> str:
    """A PYTHONPATH with timm and torchvision, which the environment lacks."""
    return f"{_site('.venv.timm', 'timm')}{os.pathsep}{torchvision_site}"


@pytest.fixture(scope="session")
def torchvision_site() -> Path:
    """A folder with torchvision, which the environment lacks."""
    return _site(".venv.torchvision", "torchvision")


def _site(name: str, package: str) -> Path:
    site = ROOT / name
    if not (site / package).is_dir():
        reason = f"{name} has no {package}; `make test-families` installs it there"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return site
