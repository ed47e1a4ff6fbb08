"""Which batches a model on the CPU computes with fused operators, as its instances log it."""

import json
import re
import shutil
from pathlib import Path

import httpx
import pytest
import torch

from exporter.config_pbtxt import parse_pbtxt, to_pbtxt
from gateway.runtime.processors import available_cpus
from tests.checkpoints import write_graph
from tests.local.instances import another_instance_computes
from tests.pictures import encode, gradient, photo
from tests.stack import WAIT_TIMEOUT_S, Stack, running_stack

MODEL = "test/vit"
LABELS = 12
MAX_BATCH = 8
FUSED = re.compile(r"\bfused for a batch of (\d+), threads: (\d+)")
NOT_FUSED = re.compile(r"not fused for a batch of (\d+): (.*)")

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="models compute on the GPU")


class _Restless(torch.nn.Module):
    """Never the same answer twice."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return torch.rand((pixel_values.shape[0], 12))


class _Choosy(torch.nn.Module):
    """Takes no noise, which is what it is tried with."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # Noise has few neighbours alike.
        assert bool(pixel_values[:, 1:].eq(pixel_values[:, :-1]).float().mean() > 0.5), "noise"
        return torch.ones((pixel_values.shape[0], 12)).cumsum(1)


def with_graph(repository: Path, folder: Path, graph: torch.nn.Module) -> Path:
    """A repository whose model is this one; it is not warmed up, which is by noise as well."""
    entry = folder / "models" / "test--vit"
    shutil.copytree(repository / "test--vit", entry)
    path = entry / "configs" / "cpu.pbtxt"
    config = parse_pbtxt(path.read_text())
    del config.model_warmup[:]
    path.write_text(to_pbtxt(config))
    write_graph(entry / "1" / "model.pt", graph)
    return entry.parent


def of_architecture(repository: Path, folder: Path, architecture: str) -> Path:
    """A repository whose model says that it is another one."""
    entry = folder / "models" / "test--vit"
    shutil.copytree(repository / "test--vit", entry)
    for path in entry.rglob("*.pbtxt"):
        config = parse_pbtxt(path.read_text())
        contract = json.loads(config.parameters["vitriton"].string_value)
        contract["architecture"] = architecture
        config.parameters["vitriton"].string_value = json.dumps(contract)
        path.write_text(to_pbtxt(config))
    return entry.parent


def logits(stack: Stack, picture: bytes) -> list[float]:
    """Largest first."""
    answer = httpx.post(
        f"{stack.url}/models/{MODEL}",
        params={"function_to_apply": "none", "top_k": LABELS},
        content=picture,
        headers={"x-use-cache": "false"},
        timeout=WAIT_TIMEOUT_S,
    )
    assert answer.status_code == 200, answer.text
    return [prediction["score"] for prediction in answer.json()]


def test_lone_images_and_full_batches_are_fused(repository: Path, tmp_path: Path) -> None:
    """Lone ones by the first instance, with all threads; full batches by both, with half."""
    with running_stack([MODEL], repository, tmp_path) as stack:
        found = sorted(FUSED.findall(stack.triton_log.read_text()))
    cpus = available_cpus()
    lone, full = ("1", str(cpus)), (str(MAX_BATCH), str(max(1, cpus // 2)))
    assert found == [lone, full, full]


def test_a_lone_image_is_computed_fused(repository: Path, tmp_path: Path) -> None:
    """Which shows in the last digits, and in no other."""
    with running_stack([MODEL], repository, tmp_path) as stack:
        fused = logits(stack, photo("china"))
        with another_instance_computes(stack):
            plain = logits(stack, photo("china"))
    assert fused == pytest.approx(plain, abs=1e-5)
    assert fused != plain


def test_other_architectures_are_not_fused(repository: Path, tmp_path: Path) -> None:
    """In some of them oneDNN's fuser writes beyond its memory."""
    models = of_architecture(repository, tmp_path, "DeiTForImageClassificationWithTeacher")
    with running_stack([MODEL], models, tmp_path) as stack:
        text = stack.triton_log.read_text()
        assert len(logits(stack, photo("china"))) == LABELS
    assert "not fused: DeiTForImageClassificationWithTeacher" in text
    assert not FUSED.search(text)


def test_a_graph_that_would_answer_otherwise_is_not_fused(repository: Path, tmp_path: Path) -> None:
    """It is served as it is."""
    models = with_graph(repository, tmp_path, _Restless())
    with running_stack([MODEL], models, tmp_path) as stack:
        text = stack.triton_log.read_text()
        assert len(logits(stack, photo("china"))) == LABELS
    refusals = NOT_FUSED.findall(text)
    assert sorted(batch for batch, _ in refusals) == ["1", str(MAX_BATCH), str(MAX_BATCH)]
    assert all("the logits would differ" in reason for _, reason in refusals)
    assert not FUSED.search(text)


def test_a_graph_that_cannot_be_tried_is_served_all_the_same(
    repository: Path, tmp_path: Path
) -> None:
    """What it says about noise is in Triton's log."""
    models = with_graph(repository, tmp_path, _Choosy())
    plain = encode(gradient(224, 224).resize((1, 1)).resize((224, 224)), "PNG")
    with running_stack([MODEL], models, tmp_path) as stack:
        text = stack.triton_log.read_text()
        assert len(logits(stack, plain)) == LABELS
    assert re.search(r"not fused: .*noise", text, re.DOTALL)
    assert not FUSED.search(text)
