"""A small checkpoint, and a copy to be damaged."""

import shutil
from pathlib import Path

import pytest

from tests.checkpoints import save_vit


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT's checkpoint folder."""
    return save_vit(tmp_path_factory.mktemp("checkpoints") / "small-vit")


@pytest.fixture
def broken(vit: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(vit, tmp_path / "broken"))
