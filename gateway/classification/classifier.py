"""One classification: admit, load, decode, infer, rank. All that a request waits for is here."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter
from typing import Final, Literal, NamedTuple

import numpy as np

from gateway.classification.cache import CacheKey, LogitsCache, cache_key
from gateway.classification.inferred import InferredBatch, InferredImage
from gateway.classification.postprocess import Prediction, default_activation
from gateway.concurrency.batching import PackedCalls
from gateway.concurrency.coalescing import SharedCalls
from gateway.deadlines import Deadlines
from gateway.errors import DeadlineExceeded, ModelNotFound, ModelNotReady, Overloaded
from gateway.http.content_coding import decode_content
from gateway.http.schemas import ClassificationRequest, Parameters, parse_request
from gateway.imaging.decode_pool import DecodePool
from gateway.imaging.images import decode, has_image_signature
from gateway.imaging.pixels import Pixels
from gateway.models.directory import ModelDirectory
from gateway.models.loading import ModelLoader
from gateway.modelspec import ModelSpec
from gateway.observability.metrics import Metrics
from gateway.options import Options, read_options
from gateway.settings import Settings
from gateway.triton.client import ComputeType, LoadedModel, TritonClient

# A larger body is parsed in a thread, unless it is an image as it is, which takes milliseconds to
# decode anyway. A compressed one is parsed there too: it may be large once it is decoded. For other
# bodies the hop would cost more than parsing.
_INLINE_BYTES: Final = 128 * 1024
# Enough under way to keep two instances of a model busy while others travel.
_MAX_CALLS: Final = 8


class IncomingRequest(NamedTuple):
    """What HTTP has of a request."""

    model_id: str
    body: bytes
    headers: Mapping[str, str]
    """By lower-case name."""
    query: Mapping[str, str]
    request_id: str
    """Handed on to Triton's log."""
    deadline: float
    """In the event loop's time, seconds; waiting for a model to load comes on top."""


class Classification(NamedTuple):
    """The answer to one request."""

    predictions: list[Prediction] | list[list[Prediction]]
    """Best first; a list of such lists if `inputs` was a list."""
    compute_type: ComputeType | Literal["cache"]
    """`cache` if no image of the request was inferred for it."""
    model: LoadedModel
    images: int
    wait_s: float
    """From the request to the start of its work: for a place, for the model."""
    infer_s: float
    """In Triton, its queue and the way there included; 0 from the cache."""
    total_s: float


class _Ready(NamedTuple):
    """A decoded image, to be sent."""

    pixels: Pixels
    request_id: str


class _Places:
    """As many as may be in flight; each block holds one."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._taken = 0

    def __enter__(self) -> None:
        if self._taken >= self._number:
            raise Overloaded(
                f"Model is overloaded: {self._number} requests are in flight"
                " (GATEWAY_MAX_INFLIGHT); try again"
            )
        self._taken += 1

    def __exit__(self, *_: object) -> None:
        self._taken -= 1


class ImageClassifier:
    """Classifies images through Triton. One per process; owns the decoding threads."""

    def __init__(
        self,
        settings: Settings,
        triton: TritonClient,
        models: ModelDirectory,
        metrics: Metrics,
        deadlines: Deadlines,
    ) -> None:
        self._settings = settings
        self._triton = triton
        self._models = models
        self._metrics = metrics
        self._deadlines = deadlines
        self._loader = ModelLoader(settings, triton, models, metrics)
        self._cache = LogitsCache(settings.cache_bytes, settings.cache_ttl_s)
        self._inferences: SharedCalls[CacheKey, tuple[InferredImage, float]] = SharedCalls()
        self._places = _Places(settings.max_inflight)
        self._packs: dict[str, PackedCalls[_Ready, InferredImage]] = {}
        self._pool = DecodePool(settings.decoding_threads)
        # For bodies that are large enough to hold the event loop up.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="body")

    async def aclose(self) -> None:
        """End the decoding threads and the loads."""
        await self._loader.close()
        self._threads.shutdown(cancel_futures=True)
        self._pool.close()

    def admit(self) -> AbstractContextManager[None]:
        """A block that holds one of the places in flight; entered before the body is read.

        Raises:
            Overloaded: On entering. All places are taken; who comes next is told at once, not
                queued.
        """
        return self._places

    async def classify(self, incoming: IncomingRequest) -> Classification:
        """Predictions for the images in the body.

        Raises:
            GatewayError: Any of `gateway.errors` but those of reading the body.
        """
        start = perf_counter()
        request = await self._parse(incoming)
        options = read_options(incoming.headers, request.options)
        model = await self._loader.get(incoming.model_id, options)
        ready = perf_counter()
        try:
            with self._deadlines.within(incoming.deadline + (ready - start)):
                try:
                    answers = await self._infer_all(model, request, options, incoming.request_id)
                except (ModelNotFound, ModelNotReady):
                    # Unloaded since its contract was read: load it again, once.
                    self._models.forget(model.spec.model_id)
                    model = await self._loader.get(incoming.model_id, options)
                    answers = await self._infer_all(model, request, options, incoming.request_id)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"There was no answer within {self._settings.request_timeout_s:g} s"
                " (GATEWAY_REQUEST_TIMEOUT_S)"
            ) from exc
        with self._metrics.stage("postprocess"):
            ranked = [_rank(model.spec, image, request.parameters) for image, _ in answers]
        self._metrics.count_images(len(answers))
        infer_s = max((seconds for _, seconds in answers), default=0.0)
        return Classification(
            predictions=ranked if request.is_list else ranked[0],
            compute_type=model.compute_type if infer_s or not answers else "cache",
            model=model,
            images=len(answers),
            wait_s=ready - start,
            infer_s=infer_s,
            total_s=perf_counter() - start,
        )

    async def _parse(self, incoming: IncomingRequest) -> ClassificationRequest:
        is_encoded = "content-encoding" in incoming.headers
        is_small = len(incoming.body) <= _INLINE_BYTES
        if not is_encoded and (is_small or has_image_signature(incoming.body)):
            return _read(incoming, self._settings)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _read, incoming, self._settings)

    async def _infer_all(
        self, model: LoadedModel, request: ClassificationRequest, options: Options, request_id: str
    ) -> list[tuple[InferredImage, float]]:
        """Each image, and the seconds in Triton that this request has caused."""
        if len(request.images) == 1:
            return [await self._infer_once(model, request.images[0], options, request_id)]
        tasks = [
            asyncio.create_task(self._infer_once(model, image, options, request_id))
            for image in request.images
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            # The first error ends the request. Its traceback holds this frame, so the tasks, which
            # hold the error, must not be in it: that cycle would keep the images.
            while tasks:
                tasks.pop().cancel()

    async def _infer_once(
        self, model: LoadedModel, image: bytes, options: Options, request_id: str
    ) -> tuple[InferredImage, float]:
        """From the cache, or together with whoever sends the same image now, if at all possible."""
        if not options.use_cache or not self._settings.cache_bytes:
            return await self._infer(model, image, request_id)
        key = cache_key(model.contract_sha256, image)
        cached = self._cache.get(key)
        if cached is not None:
            self._metrics.count_cache("hit")
            (kept,) = InferredBatch(cached[np.newaxis], model.spec.id2label).images()
            return kept, 0.0

        async def infer_and_keep() -> tuple[InferredImage, float]:
            inferred, seconds = await self._infer(model, image, request_id)
            self._cache.put(key, inferred.logits())
            self._metrics.cache_bytes.set(self._cache.size_bytes)
            return inferred, seconds

        (inferred, seconds), is_shared = await self._inferences.run(key, infer_and_keep)
        self._metrics.count_cache("shared" if is_shared else "miss")
        return inferred, 0.0 if is_shared else seconds

    async def _infer(
        self, model: LoadedModel, image: bytes, request_id: str
    ) -> tuple[InferredImage, float]:
        settings = self._settings
        steps = model.spec.preprocessing
        with self._metrics.stage("decode"):
            pixels = await self._pool.run(
                partial(decode, image, steps, settings.max_image_pixels, settings.decode),
                is_long=len(image) > _INLINE_BYTES,
            )
        start = perf_counter()
        with self._metrics.stage("infer"):
            inferred = await self._packs_of(model).run(_Ready(pixels, request_id))
        inferred.check()
        return inferred, perf_counter() - start

    def _packs_of(self, model: LoadedModel) -> PackedCalls[_Ready, InferredImage]:
        """The model's calls; those of another version of it are other calls."""
        packs = self._packs.get(model.contract_sha256)
        if packs is None:

            async def infer(ready: Sequence[_Ready]) -> list[InferredImage]:
                first, others = ready[0].request_id, len(ready) - 1
                logits = await self._triton.infer(
                    model.spec,
                    [image.pixels for image in ready],
                    self._settings.request_timeout_s,
                    f"{first}+{others}" if others else first,
                )
                return InferredBatch(logits, model.spec.id2label).images()

            # Half a batch: Triton makes whole ones of two calls.
            most = max(1, model.max_batch_size // 2)
            packs = self._packs[model.contract_sha256] = PackedCalls(infer, most, _MAX_CALLS)
        return packs


def _read(incoming: IncomingRequest, settings: Settings) -> ClassificationRequest:
    headers = incoming.headers
    body = decode_content(incoming.body, headers.get("content-encoding"), settings.max_body_bytes)
    return parse_request(body, headers.get("content-type", ""), incoming.query, settings.max_inputs)


def _rank(spec: ModelSpec, image: InferredImage, parameters: Parameters) -> list[Prediction]:
    activation = parameters.function_to_apply or default_activation(
        spec.problem_type, len(spec.id2label)
    )
    return image.predictions(activation, parameters.top_k)
