"""The figures of all family tests, written where `--families-table` says."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack import ROOT


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Iterator[list[dict[str, Any]]]:
    """Rows of the table, family by family in the order they came."""
    rows: list[dict[str, Any]] = []
    yield rows
    target = pytestconfig.getoption("--families-table")
    if target:
        families = list(dict.fromkeys(row["family"] for row in rows))
        rows.sort(key=lambda row: families.index(row["family"]))
        Path(target).write_text(json.dumps(rows, indent=1) + "\n")


@pytest.fixture(scope="session")
def timm_path(torchvision_site: Path) -> str:
    """A PYTHONPATH with timm, which is in no environment of ours, and torchvision."""
    return f"{_site('.venv.timm', 'timm')}{os.pathsep}{torchvision_site}"


@pytest.fixture(scope="session")
def torchvision_site() -> Path:
    """Folder with torchvision, which is in no environment of ours."""
    return _site(".venv.torchvision", "torchvision")


def _site(name: str, package: str) -> Path:
    site = ROOT / name
    if not (site / package).is_dir():
        reason = f"{name} has no {package}; `make test-families` installs it there"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return site
