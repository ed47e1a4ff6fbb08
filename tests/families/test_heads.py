"""Every kind of head over HTTP: activation by problem type, labels of every kind and number."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from transformers import ViTForImageClassification, ViTImageProcessorPil

from exporter.config_pbtxt import ServingOptions
from exporter.export import ExportRequest, export_model
from tests.checkpoints import save_vit
from tests.pictures import in_mode, photo
from tests.reference import expected
from tests.stack import BIT_EQUAL, Stack, running_stack

pytestmark = pytest.mark.families

SCORE_TOLERANCE = 1e-5
# ImageNet-21k with the background class, the largest label set in common use.
MANY = 21_841
SMALL: dict[str, Any] = {"num_hidden_layers": 1}


def with_labels(count: int, problem_type: str | None = None) -> dict[str, Any]:
    id2label = {i: f"n{i:08}, синоним {i % 100}" for i in range(count)}
    label2id = {label: i for i, label in id2label.items()}
    return SMALL | {"id2label": id2label, "label2id": label2id, "problem_type": problem_type}


HEADS: dict[str, dict[str, Any]] = {
    "single-label": with_labels(5, "single_label_classification"),
    "multi-label": with_labels(5, "multi_label_classification"),
    "one-label": with_labels(1),
    "regression": with_labels(1, "regression"),
    "many-labels": with_labels(MANY),
}


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint for each kind of head."""
    folder = tmp_path_factory.mktemp("heads")
    return {name: save_vit(folder / name, **config) for name, config in HEADS.items()}


@pytest.fixture(scope="module")
def served_heads(
    heads: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running stack with all of them."""
    repository = tmp_path_factory.mktemp("models") / "model_repository"
    for checkpoint in heads.values():
        export_model(
            ExportRequest(str(checkpoint), repository, options=ServingOptions(max_batch_size=2))
        )
    folder = tmp_path_factory.mktemp("serve")
    with running_stack(list(heads), repository, folder, **BIT_EQUAL) as stack:
        yield stack


@pytest.mark.parametrize("head", HEADS)
def test_head_answers_as_transformers_does(
    served_heads: Stack, heads: dict[str, Path], head: str
) -> None:
    """Without `top_k`: the same labels in the same order, scores within 1e-5."""
    picture = photo("flower")

    answer = httpx.post(f"{served_heads.url}/models/{head}", content=picture, timeout=60).json()

    wanted = expected(heads[head], picture)
    assert [p["label"] for p in answer] == [p["label"] for p in wanted]
    assert [p["score"] for p in answer] == pytest.approx(
        [p["score"] for p in wanted], abs=SCORE_TOLERANCE, rel=1e-6
    )


def test_all_of_many_labels_come_back(served_heads: Stack) -> None:
    """With a `top_k` far above the default, every label comes once."""
    answer = httpx.post(
        f"{served_heads.url}/models/many-labels",
        params={"top_k": 100_000},
        content=photo("flower"),
        timeout=60,
    ).json()

    assert len(answer) == len({p["label"] for p in answer}) == MANY


def test_one_channel_model_takes_grey(tmp_path: Path) -> None:
    """The pipeline only takes colour, so the reference is the processor and the model."""
    processor = ViTImageProcessorPil(resample=2, image_mean=[0.4], image_std=[0.3])
    checkpoint = save_vit(tmp_path / "grey", num_channels=1, **with_labels(5))
    processor.save_pretrained(checkpoint)
    repository = tmp_path / "models"
    export_model(
        ExportRequest(str(checkpoint), repository, options=ServingOptions(max_batch_size=2))
    )
    model = ViTForImageClassification.from_pretrained(checkpoint).eval()
    with running_stack(["grey"], repository, tmp_path, **BIT_EQUAL) as stack:
        for picture in (photo("china"), in_mode("L", "PNG"), in_mode("RGBA", "PNG")):
            answer = httpx.post(
                f"{stack.url}/models/grey",
                params={"function_to_apply": "none"},
                content=picture,
                timeout=60,
            ).json()
            grey = Image.open(io.BytesIO(picture)).convert("RGB").convert("L")
            with torch.inference_mode():
                logits = model(**processor(grey, return_tensors="pt")).logits[0]
            assert [p["score"] for p in answer] == pytest.approx(
                logits.sort(descending=True).values.tolist(), abs=1e-4
            )
