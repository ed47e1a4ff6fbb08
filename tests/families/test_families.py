"""Every tested family, in every precision, over HTTP, against `transformers.pipeline`.

`make test-families` runs it; `make families-table` also writes the figures for `docs/`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.config_pbtxt import ServingOptions
from exporter.export import ExportRequest, export_model
from exporter.precision import Precision, cpu_has_bf16
from tests.families.checkpoints import FAMILIES, save_family
from tests.families.figures import compare
from tests.pictures import PICTURES
from tests.reference import ALL_LABELS, expected
from tests.stack import BIT_EQUAL, Stack, running_stack

pytestmark = pytest.mark.families

PRECISIONS: list[Precision] = ["fp32", "bf16", "fp16"]


@pytest.fixture(scope="session")
def family_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoint folders by family."""
    folder = tmp_path_factory.mktemp("families")
    return {name: save_family(name, folder / name.replace(" ", "-")) for name in FAMILIES}


@pytest.fixture(scope="session", params=PRECISIONS)
def served(
    request: pytest.FixtureRequest,
    family_checkpoints: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Precision, Stack]]:
    """A running stack with all families in one precision."""
    precision: Precision = request.param
    if precision == "bf16" and not cpu_has_bf16():
        pytest.skip("this processor has no bfloat16 arithmetic")
    repository = tmp_path_factory.mktemp(precision) / "model_repository"
    for checkpoint in family_checkpoints.values():
        options = ServingOptions(max_batch_size=4)
        export_model(
            ExportRequest(str(checkpoint), repository, precision=precision, options=options)
        )
    models = [checkpoint.name for checkpoint in family_checkpoints.values()]
    folder = tmp_path_factory.mktemp("serve")
    with running_stack(models, repository, folder, **BIT_EQUAL) as stack:
        yield precision, stack


@pytest.mark.parametrize("family", FAMILIES)
def test_family_answers_as_transformers_does(
    served: tuple[Precision, Stack],
    family_checkpoints: dict[str, Path],
    figures: list[dict[str, Any]],
    family: str,
) -> None:
    """In fp32 every score within 1e-5, in the same order; in lower precision within bounds."""
    precision, stack = served
    checkpoint = family_checkpoints[family]
    wanted = {
        name: expected(checkpoint, picture, top_k=ALL_LABELS) for name, picture in PICTURES.items()
    }

    figures.append(compare(stack.url, checkpoint.name, wanted, family, precision))
