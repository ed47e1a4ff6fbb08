"""What the classifier keeps of the models that it has called."""

import asyncio
import gc
import weakref
from contextlib import aclosing
from dataclasses import replace

from gateway.classification.classifier import ImageClassifier
from gateway.models.directory import ModelDirectory
from gateway.models.loading import ModelLoader
from gateway.modelspec import ModelSpec
from gateway.observability.metrics import Metrics
from gateway.settings import Settings
from gateway.triton.client import LoadedModel, TritonClient
from gateway.triton.inference import Inference


def test_new_version_of_a_model_replaces_the_calls_for_the_old_one() -> None:
    """The calls for a version keep its contract in memory, so they end with the version."""
    spec = ModelSpec.model_construct(model_id="a/b", id2label=("x",))  # type: ignore[call-arg]  # no other is read
    old = LoadedModel(spec, "a--b", "old contract", "cpu", 8)

    async def run() -> None:
        settings, metrics = Settings(), Metrics()
        async with TritonClient("127.0.0.1:1") as triton:
            models = ModelDirectory(triton)
            loader = ModelLoader(settings, triton, models, metrics)
            async with aclosing(
                ImageClassifier(settings, Inference(triton), models, loader, metrics)
            ) as classifier:
                calls = classifier.batching_of(old)
                assert classifier.batching_of(old) is calls
                old_calls = weakref.ref(calls)
                del calls

                new_calls = classifier.batching_of(replace(old, contract_sha256="new contract"))

                gc.collect()
                assert old_calls() is None
                assert classifier.batching_of(old) is not new_calls

    asyncio.run(run())
