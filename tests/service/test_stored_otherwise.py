"""Checkpoints stored in half precision, or with labels that have no UTF-8."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter.config_pbtxt import ServingOptions
from exporter.export import ExportRequest, export_model
from tests.checkpoints import save_vit
from tests.pictures import PICTURES
from tests.reference import ALL_LABELS, expected
from tests.stack import BIT_EQUAL, Stack, running_stack

SCORE_TOLERANCE = 1e-5
# The first half of an emoji, at which a label may be cut by a program that counts UTF-16 units.
LABELS = {0: "cat", 1: "grin \ud83d", 2: "dog"}


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT stored in bfloat16, one of whose labels ends in a lone surrogate."""
    folder = save_vit(tmp_path_factory.mktemp("half") / "vit", id2label=LABELS, label2id={})
    weights = load_file(folder / "model.safetensors")
    stored = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return folder


@pytest.fixture(scope="module")
def half_stack(half: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that serves the checkpoint as `test/half`.

    It is also served as `test/older`, with the contract that an older exporter would write.
    """
    folder = tmp_path_factory.mktemp("serve")
    for model_id in ("test/half", "test/older"):
        options = ServingOptions(max_batch_size=1)
        export_model(
            ExportRequest(str(half), folder / "models", model_id, precision="fp32", options=options)
        )
    for path in (folder / "models" / "test--older").rglob("*.pbtxt"):
        text = path.read_text(encoding="utf-8")
        older = text.replace(r"\"checkpoint_dtype\":\"bf16\",", "")
        assert older != text
        path.write_text(older, encoding="utf-8")
    models = ["test/half", "test/older"]
    with running_stack(models, folder / "models", folder, **BIT_EQUAL) as running:
        yield running


def test_info_has_the_stored_and_the_computed_precision(half_stack: Stack) -> None:
    """`/info` has the stored precision beside the computed one, and null if it is unknown."""
    half, older = (
        httpx.get(f"{half_stack.url}/models/{model_id}/info").json()
        for model_id in ("test/half", "test/older")
    )

    assert (half["checkpoint_dtype"], half["model_dtype"]) == ("bf16", "fp32")
    assert (older["checkpoint_dtype"], older["model_dtype"]) == (None, "fp32")


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES.keys())
def test_half_precision_checkpoint_is_computed_in_fp32(
    half_stack: Stack, half: Path, picture: bytes
) -> None:
    """Scores equal those of the pipeline in float32, and labels are valid UTF-8."""
    url = f"{half_stack.url}/models/test/half"

    answer = httpx.post(url, params={"top_k": ALL_LABELS}, content=picture)

    wanted = expected(half, picture, dtype="float32", top_k=ALL_LABELS)
    assert [p["label"] for p in answer.json()] == [
        p["label"].replace("\ud83d", "\ufffd") for p in wanted
    ]
    assert [p["score"] for p in answer.json()] == pytest.approx(
        [p["score"] for p in wanted], abs=SCORE_TOLERANCE, rel=0
    )
    assert "grin \ufffd" in answer.content.decode("utf-8")


def test_pipeline_in_stored_precision_has_other_scores(half: Path) -> None:
    """The pipeline in bfloat16 has other scores, so the promise of 1e-5 names float32."""
    own, single = (
        {p["label"]: p["score"] for p in expected(half, PICTURES["bmp"], dtype, top_k=ALL_LABELS)}
        for dtype in ("auto", "float32")
    )

    assert max(abs(own[label] - single[label]) for label in single) > 100 * SCORE_TOLERANCE
