"""The figures of all family tests, written where `--families-table` says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


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
