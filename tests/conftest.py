"""Start the real stack once per session: checkpoints → exporter → tritonserver → gateway.

Checkpoints have real architectures and seeded random weights, with which scores differ between
pictures. The demo is the model that `vitriton export` trains.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

from tests.stack import BIT_EQUAL, ROOT, VITRITON, Stack, running_stack

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `make families-table` and `make test-jpegs`."""
    parser.addoption("--families-table", metavar="FILE", help="write the figures there")
    parser.addoption(
        "--jpegs-to-triton", action="store_true", help="have Triton decode JPEGs, on the CPU"
    )


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove a developer's own settings, which would change tests."""
    for name in os.environ:
        if name.startswith("GATEWAY_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoint folders by model id."""
    from tests.checkpoints import save_deit_distilled, save_vit

    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "test/vit": save_vit(folder / "vit"),
        "test/deit-distilled": save_deit_distilled(folder / "deit-distilled"),
    }


@pytest.fixture(scope="session")
def demo_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the demo model, which is trained if the checkout lacks it."""
    repository = tmp_path_factory.mktemp("demo") / "model_repository"
    subprocess.run(
        [*VITRITON, "export", "vitriton/vit-digits", "--output", str(repository)],
        cwd=ROOT,
        check=True,
        timeout=280,
    )
    return repository


@pytest.fixture(scope="session")
def repository(
    demo_repository: Path, checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A copy of the demo's repository with the other models added.

    `test/cold`, `test/nan` and `test/broken` are not loaded at first. `test/cold` takes seconds to
    load, the logits of `test/nan` are not finite, and the file of `test/broken` is damaged.
    """
    from exporter.config_pbtxt import ServingOptions
    from exporter.export import ExportRequest, export_model
    from tests.checkpoints import slow_down_loading, write_nan_graph

    folder = tmp_path_factory.mktemp("all") / "model_repository"
    shutil.copytree(demo_repository, folder)
    sources = checkpoints | dict.fromkeys(
        ["test/cold", "test/nan", "test/broken"], checkpoints["test/vit"]
    )
    for model_id, checkpoint in sources.items():
        options = ServingOptions(max_batch_size=8 if model_id in checkpoints else 1)
        export_model(ExportRequest(str(checkpoint), folder, model_id, options=options))
    slow_down_loading(folder / "test--cold")
    write_nan_graph(folder / "test--nan" / "1" / "model.pt", labels=12)
    (folder / "test--broken" / "1" / "model.pt").write_bytes(b"damaged")
    return folder


@pytest.fixture(scope="session")
def stack(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Stack]:
    """`vitriton serve` with three loaded models, in image mode `reference`.

    With `--jpegs-to-triton` in mode `fast`, and the models take files.
    """
    models = ["vitriton/vit-digits", "test/vit", "test/deit-distilled"]
    folder = tmp_path_factory.mktemp("serve")
    if not pytestconfig.getoption("--jpegs-to-triton"):
        with running_stack(models, repository, folder, **BIT_EQUAL) as running:
            yield running
        return
    from tests.jpeg_profile import CPU_JPEG, repository_with_cpu_jpeg

    files = repository_with_cpu_jpeg(repository, folder / "models")
    with running_stack(models, files, folder, profile=CPU_JPEG) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    """An HTTP client of the stack's gateway."""
    with httpx.Client(base_url=stack.url, timeout=60) as http:
        yield http
