"""A folder that cannot be written to."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that not even its owner can write to."""
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
