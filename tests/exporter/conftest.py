"""Small checkpoints, and copies that tests may damage."""

import shutil
from pathlib import Path

import pytest

from tests.checkpoints import save_vit
from tests.exporter.entries import edit


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT's checkpoint folder."""
    return save_vit(tmp_path_factory.mktemp("checkpoints") / "small-vit")


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of 32x32 pixels, which is exported in half a second."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-vit"
    save_vit(folder, image_size=32)
    edit(folder / "preprocessor_config.json", size={"height": 32, "width": 32})
    return folder


@pytest.fixture
def tiny(tiny_vit: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that the test may damage."""
    return Path(shutil.copytree(tiny_vit, tmp_path / "tiny"))


@pytest.fixture
def broken(vit: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that the test may damage."""
    return Path(shutil.copytree(vit, tmp_path / "broken"))
