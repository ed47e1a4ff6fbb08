"""One classification: find the model, decode, infer, rank."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter
from typing import Final, Literal, NamedTuple

import numpy as np

from gateway.classification.cache import CacheKey, LogitsCache, cache_key
from gateway.classification.postprocess import (
    InferredBatch,
    InferredImage,
    Prediction,
    default_activation,
)
from gateway.concurrency import Admission, Batching, Coalescing, ThreadPool
from gateway.errors import DeadlineExceeded, ModelNotFound, ModelNotReady
from gateway.imaging.images import decode
from gateway.imaging.jpeg_file import has_short_head
from gateway.imaging.jpeg_for_triton import MAX_FILE_BYTES, jpeg_for_triton, jpeg_or_pixels
from gateway.models.directory import ModelDirectory
from gateway.models.loading import ModelLoader
from gateway.modelspec import ModelSpec, Preprocessing
from gateway.observability.metrics import Metrics
from gateway.request import ClassificationRequest, Options, Parameters
from gateway.settings import DecodeMode, Settings
from gateway.tensors import JpegFile, Picture
from gateway.triton.client import ComputeType, LoadedModel
from gateway.triton.inference import Inference

# Decoding a larger file takes milliseconds, so that finished images must not wait for it.
_LONG_DECODE_BYTES: Final = 128 * 1024


class Classification(NamedTuple):
    """The answer to one request."""

    predictions: list[Prediction] | list[list[Prediction]]
    """Best first; a list of such lists if `inputs` was a list."""
    compute_type: ComputeType | Literal["cache"]
    """`cache` if every image was answered from the cache or by another request's inference."""
    model: LoadedModel
    images: int
    wait_s: float
    """Seconds of waiting for the model: reading its contract, and loading it."""
    infer_s: float
    """In Triton, with its queue and the network; 0 from the cache."""
    total_s: float


class _Answer(NamedTuple):
    """One image's logits, and the seconds in Triton that this request has caused."""

    image: InferredImage
    infer_s: float


class _PreparedImage(NamedTuple):
    picture: Picture
    request_id: str


def _file_bytes(image: _PreparedImage) -> int:
    """What an image adds to its call. Pixels add nothing: the number of images bounds them."""
    return len(image.picture.data) if isinstance(image.picture, JpegFile) else 0


class _VersionBatching(NamedTuple):
    """The batching of a model as Triton serves it."""

    model: LoadedModel
    batching: Batching[_PreparedImage, InferredImage]

    def suits(self, model: LoadedModel) -> bool:
        """Whether the model has the same version, input and largest batch."""
        mine = self.model
        return (
            mine.contract_sha256 == model.contract_sha256
            and mine.takes_files == model.takes_files
            and mine.max_batch_size == model.max_batch_size
        )


class ImageClassifier:
    """Classifies images through Triton. One per process; owns the decoding threads."""

    def __init__(
        self,
        settings: Settings,
        inference: Inference,
        models: ModelDirectory,
        loader: ModelLoader,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._inference = inference
        self._models = models
        self._loader = loader
        self._metrics = metrics
        self._cache = LogitsCache(settings.cache_bytes, settings.cache_ttl_s)
        self._identical: Coalescing[CacheKey, _Answer] = Coalescing()
        self._admission = Admission(settings.max_inflight)
        self._batchings: dict[str, _VersionBatching] = {}
        self._threads: ThreadPool[Picture] = ThreadPool(settings.decoding_threads, "decode")

    async def aclose(self) -> None:
        """End the decoding threads."""
        self._threads.close()

    def admit(self) -> AbstractContextManager[None]:
        """A block that counts as one request in flight; to be entered before the body is read.

        Raises:
            Overloaded: On entering. GATEWAY_MAX_INFLIGHT requests are in flight.
        """
        return self._admission

    async def classify(
        self, model_id: str, request: ClassificationRequest, request_id: str, deadline: float
    ) -> Classification:
        """Predictions for the images of the request.

        Args:
            model_id: As the caller wrote it.
            request: The images, and what is asked of them.
            request_id: For Triton's log.
            deadline: In the event loop's time, seconds; waiting for the model is added.

        Raises:
            GatewayError: Any of `gateway.errors` but those of reading the body.
        """
        start = perf_counter()
        try:
            model, answers, wait_s = await self._infer_loaded(
                model_id, request, request_id, deadline
            )
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"There was no answer within {self._settings.request_timeout_s:g} s"
                " (GATEWAY_REQUEST_TIMEOUT_S)"
            ) from exc
        with self._metrics.postprocess_seconds.time():
            ranked = [_rank(model.spec, answer.image, request.parameters) for answer in answers]
        self._metrics.images.inc(len(answers))
        infer_s = max((answer.infer_s for answer in answers), default=0.0)
        return Classification(
            predictions=ranked if request.is_list else ranked[0],
            compute_type=model.compute_type if infer_s or not answers else "cache",
            model=model,
            images=len(answers),
            wait_s=wait_s,
            infer_s=infer_s,
            total_s=perf_counter() - start,
        )

    async def _infer_loaded(
        self, model_id: str, request: ClassificationRequest, request_id: str, deadline: float
    ) -> tuple[LoadedModel, list[_Answer], float]:
        """The model, its answers, and the seconds of waiting for the model.

        Raises:
            TimeoutError: At the deadline, which waiting for the model extends.
        """
        wait_s = 0.0
        for is_last_attempt in (False, True):
            model, seconds = await self._loaded_model(model_id, request.options)
            wait_s += seconds
            try:
                async with asyncio.timeout_at(deadline + wait_s):
                    return model, await self._infer_all(model, request, request_id), wait_s
            except (ModelNotFound, ModelNotReady):
                # Triton has unloaded or replaced the model since its contract was read.
                self._models.forget(model_id)
                if is_last_attempt:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _loaded_model(self, model_id: str, options: Options) -> tuple[LoadedModel, float]:
        """The model, which Triton loads if it is not loaded, and the seconds of waiting for it."""
        start = perf_counter()
        try:
            model = await self._models.get(model_id)
        except (ModelNotFound, ModelNotReady):
            await self._loader.load(model_id, options)
            model = await self._models.get(model_id)
        return model, perf_counter() - start

    async def _infer_all(
        self, model: LoadedModel, request: ClassificationRequest, request_id: str
    ) -> list[_Answer]:
        use_cache = request.options.use_cache and self._settings.cache_bytes > 0
        infer = self._infer_cached if use_cache else self._infer
        if len(request.images) == 1:
            return [await infer(model, request.images[0], request_id)]
        tasks = [asyncio.create_task(infer(model, image, request_id)) for image in request.images]
        try:
            return await asyncio.gather(*tasks)
        finally:
            # The first error ends the request. Its traceback holds this frame, so the frame must
            # not hold the tasks, which hold the error: that cycle would keep the images.
            while tasks:
                tasks.pop().cancel()

    async def _infer_cached(self, model: LoadedModel, image: bytes, request_id: str) -> _Answer:
        """From the cache, or by the inference of an identical image in flight, or by a new one."""
        key = cache_key(model.contract_sha256, image)
        logits = self._cache.get(key)
        if logits is not None:
            self._metrics.cache_hits.inc()
            (cached,) = InferredBatch(logits[np.newaxis], model.spec.id2label).images()
            return _Answer(cached, 0.0)

        async def infer_and_keep() -> _Answer:
            answer = await self._infer(model, image, request_id)
            self._cache.put(key, answer.image.logits())
            self._metrics.cache_bytes.set(self._cache.size_bytes)
            return answer

        answer, is_shared = await self._identical.run(key, infer_and_keep)
        if not is_shared:
            self._metrics.cache_misses.inc()
            return answer
        self._metrics.cache_shared.inc()
        return answer._replace(infer_s=0.0)

    async def _infer(self, model: LoadedModel, image: bytes, request_id: str) -> _Answer:
        with self._metrics.decode_seconds.time():
            picture = await self._picture_for(model, image)
        start = perf_counter()
        inferred = await self._infer_picture(model, picture, request_id)
        if isinstance(picture, JpegFile) and not inferred.is_finite:
            # Triton's decoder refuses some files that Pillow decodes. Pillow decides, as it does
            # for the other models, and has the right message for a file that it refuses too.
            with self._metrics.decode_seconds.time():
                pixels = await self._in_thread(decode, model, image)
            inferred = await self._infer_picture(model, pixels, request_id)
        inferred.check()
        return _Answer(inferred, perf_counter() - start)

    async def _picture_for(self, model: LoadedModel, image: bytes) -> Picture:
        """What Triton gets: pixels, or the file itself if the model takes files."""
        # Only Pillow is bit-equal to transformers.
        if not model.takes_files or self._settings.decode == "reference":
            return await self._in_thread(decode, model, image)
        if len(image) > _LONG_DECODE_BYTES or not has_short_head(image):
            return await self._in_thread(jpeg_or_pixels, model, image)
        # Reading such a file takes less than a change of threads.
        steps = model.spec.preprocessing
        file = jpeg_for_triton(image, steps, self._settings.max_image_pixels)
        return await self._in_thread(decode, model, image) if file is None else file

    async def _in_thread(
        self,
        prepare: Callable[[bytes, Preprocessing, int, DecodeMode], Picture],
        model: LoadedModel,
        image: bytes,
    ) -> Picture:
        steps, settings = model.spec.preprocessing, self._settings
        return await self._threads.run(
            partial(prepare, image, steps, settings.max_image_pixels, settings.decode),
            is_long=len(image) > _LONG_DECODE_BYTES,
        )

    async def _infer_picture(
        self, model: LoadedModel, picture: Picture, request_id: str
    ) -> InferredImage:
        is_jpeg = isinstance(picture, JpegFile)
        (self._metrics.sent_jpegs if is_jpeg else self._metrics.sent_pixels).inc()
        with self._metrics.infer_seconds.time():
            return await self.batching_of(model).run(_PreparedImage(picture, request_id))

    def batching_of(self, model: LoadedModel) -> Batching[_PreparedImage, InferredImage]:
        """The batching of the model's images; the model in another version or form replaces it."""
        current = self._batchings.get(model.spec.model_id)
        if current is None or not current.suits(model):
            # Half a batch in a call, as Triton's dynamic batcher joins two calls to a whole batch:
            # docs/decisions/0006-one-call-for-many-images.md.
            most_images = max(1, model.max_batch_size // 2)
            batching = Batching(
                partial(self._call_triton, model),
                most_images,
                self._settings.max_calls_per_model,
                _file_bytes,
                MAX_FILE_BYTES,
            )
            current = _VersionBatching(model, batching)
            self._batchings[model.spec.model_id] = current
        return current.batching

    async def _call_triton(
        self, model: LoadedModel, images: Sequence[_PreparedImage]
    ) -> list[InferredImage]:
        first, others = images[0].request_id, len(images) - 1
        logits = await self._inference.infer(
            model,
            [image.picture for image in images],
            self._settings.request_timeout_s,
            f"{first}+{others}" if others else first,
        )
        return InferredBatch(logits, model.spec.id2label).images()


def _rank(spec: ModelSpec, image: InferredImage, parameters: Parameters) -> list[Prediction]:
    activation = parameters.function_to_apply or default_activation(
        spec.problem_type, len(spec.id2label)
    )
    return image.predictions(activation, parameters.top_k)
