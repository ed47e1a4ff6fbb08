"""The bench exports a model again when the code that makes it has changed."""

import os
from pathlib import Path

from bench.models import is_fresh


def _file(folder: Path, name: str, changed: int) -> Path:
    path = folder / name
    path.touch()
    os.utime(path, (changed, changed))
    return path


def test_file_newer_than_its_sources_is_fresh(tmp_path: Path) -> None:
    sources = [_file(tmp_path, "a.py", 10), _file(tmp_path, "b.py", 20)]
    made = [_file(tmp_path, "a.pt", 30), _file(tmp_path, "b.pt", 30)]
    assert is_fresh(made, sources)


def test_file_older_than_one_source_is_stale(tmp_path: Path) -> None:
    sources = [_file(tmp_path, "a.py", 10), _file(tmp_path, "b.py", 40)]
    made = [_file(tmp_path, "a.pt", 50), _file(tmp_path, "b.pt", 30)]
    assert not is_fresh(made, sources)


def test_missing_file_is_stale(tmp_path: Path) -> None:
    made = [_file(tmp_path, "a.pt", 30), tmp_path / "b.pt"]
    assert not is_fresh(made, [_file(tmp_path, "a.py", 10)])
