"""Folders that stand in a newcomer's way."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that its owner cannot write to either."""
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
