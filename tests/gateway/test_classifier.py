"""What the classifier does when models change, and what it keeps of them."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.classification.classifier import ImageClassifier
from gateway.errors import DeadlineExceeded, ModelNotReady
from gateway.models.directory import ModelDirectory
from gateway.models.loading import ModelLoader
from gateway.modelspec import ModelSpec, Preprocessing, Size
from gateway.observability.metrics import Metrics
from gateway.request import ClassificationRequest, Options
from gateway.settings import Settings
from gateway.tensors import Logits, Picture
from gateway.triton.client import LoadedModel, TritonClient
from gateway.triton.inference import Inference
from tests.pictures import encode, gradient

PREPROCESSING = Preprocessing(resize=Size(height=8, width=8), resample="bilinear")
SPEC = ModelSpec.model_construct(  # type: ignore[call-arg]  # no other field is read
    model_id="a/b", id2label=("x",), preprocessing=PREPROCESSING, problem_type=None
)
MODEL = LoadedModel(SPEC, "a--b", "old contract", "cpu", 8, False)
PICTURES = tuple(encode(gradient(40, height), "PNG") for height in (40, 41))


@asynccontextmanager
async def classifier_of(
    triton: TritonClient, inference: Inference
) -> AsyncIterator[ImageClassifier]:
    settings, metrics = Settings(), Metrics()
    models = ModelDirectory(triton)
    loader = ModelLoader(settings, triton, models, metrics)
    async with (
        triton,
        aclosing(loader),
        aclosing(ImageClassifier(settings, inference, models, loader, metrics)) as classifier,
    ):
        yield classifier


@pytest.mark.parametrize(
    "change",
    [{"contract_sha256": "new contract"}, {"takes_files": True}, {"max_batch_size": 4}],
)
def test_model_in_another_form_replaces_the_batching_of_the_old_one(
    change: dict[str, Any],
) -> None:
    """A batching makes calls for one version and one input, and keeps its contract in memory."""

    async def run() -> None:
        triton = TritonClient("127.0.0.1:1")
        async with classifier_of(triton, Inference(triton)) as classifier:
            batching = classifier.batching_of(MODEL)
            assert classifier.batching_of(MODEL) is batching
            old_batching = weakref.ref(batching)
            del batching

            classifier.batching_of(replace(MODEL, **change))

            gc.collect()
            assert old_batching() is None

    asyncio.run(run())


class ScriptedTriton(TritonClient):
    """A Triton that has the model loaded; records the calls."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.calls: list[str] = []

    async def loaded_model(self, model_id: str) -> LoadedModel:
        self.calls.append("ModelConfig")
        return MODEL

    async def load_model(self, model_id: str, timeout_s: float) -> None:
        self.calls.append("RepositoryModelLoad")


class ScriptedInference(Inference):
    """An inference whose first calls fail; records the calls."""

    def __init__(self, triton: ScriptedTriton, failures: int) -> None:
        super().__init__(triton)
        self._scripted = triton
        self._failures = failures

    async def infer(
        self, model: LoadedModel, pictures: Sequence[Picture], timeout_s: float, request_id: str
    ) -> Logits:
        self._scripted.calls.append("ModelInfer")
        self._failures -= 1
        if self._failures >= 0:
            raise ModelNotReady("Model a/b is not ready")
        return np.zeros((len(pictures), 1), np.float32)


def calls_of(options: Options, failures: int) -> list[str]:
    """Calls to Triton for one request, if the first calls of `ModelInfer` find no model."""

    async def run() -> list[str]:
        triton = ScriptedTriton("127.0.0.1:1")
        async with classifier_of(triton, ScriptedInference(triton, failures)) as classifier:
            deadline = asyncio.get_running_loop().time() + 60
            request = ClassificationRequest(PICTURES[:1], options=options)
            answer = await classifier.classify("a/b", request, "id", deadline)
            assert len(answer.predictions) == 1
        return triton.calls

    return asyncio.run(run())


@pytest.mark.parametrize("options", [Options(), Options(load_model=False)])
def test_model_that_was_replaced_after_its_contract_was_read_is_inferred_again(
    options: Options,
) -> None:
    """The contract is read again, and nothing is loaded, as Triton has the model."""
    assert calls_of(options, failures=1) == ["ModelConfig", "ModelInfer"] * 2


def test_model_that_is_never_there_is_an_error() -> None:
    """The second failure ends the request."""
    with pytest.raises(ModelNotReady):
        calls_of(Options(), failures=2)


def test_deadline_ends_a_request_for_several_images() -> None:
    """The error names the deadline, although Triton would have failed too."""

    async def run() -> None:
        triton = ScriptedTriton("127.0.0.1:1")
        async with classifier_of(triton, ScriptedInference(triton, failures=9)) as classifier:
            past = asyncio.get_running_loop().time() - 1
            with pytest.raises(DeadlineExceeded):
                await classifier.classify("a/b", ClassificationRequest(PICTURES), "id", past)

    asyncio.run(run())
