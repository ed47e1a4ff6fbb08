"""One classification: admit, decode, infer, rank. Everything a request waits for is here."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from gateway.errors import DeadlineExceeded, Overloaded
from gateway.images import decode
from gateway.metrics import Metrics
from gateway.models import ModelDirectory
from gateway.modelspec import ModelSpec
from gateway.pixels import Pixels
from gateway.postprocess import Prediction, default_activation, top_predictions
from gateway.schemas import Parameters, parse_request
from gateway.settings import Settings
from gateway.triton import TritonClient


class ImageClassifier:
    """Classifies images through Triton. One per process; owns the decoding threads."""

    def __init__(
        self, settings: Settings, triton: TritonClient, models: ModelDirectory, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._triton = triton
        self._models = models
        self._metrics = metrics
        self._admitted = 0
        # Pillow lets go of the GIL while it decodes and resizes, so threads use the cores.
        self._threads = ThreadPoolExecutor(
            len(os.sched_getaffinity(0)), thread_name_prefix="decode"
        )

    def close(self) -> None:
        """End the decoding threads."""
        self._threads.shutdown(cancel_futures=True)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one of the places in flight; entered before the body is read.

        Raises:
            Overloaded: All places are taken; who comes next is told at once, not queued.
        """
        limit = self._settings.max_inflight
        if self._admitted >= limit:
            raise Overloaded(
                f"Model is overloaded: {limit} requests are in flight (GATEWAY_MAX_INFLIGHT);"
                " try again"
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def classify(
        self,
        model_id: str,
        body: bytes,
        query: Mapping[str, str],
        request_id: str,
        deadline: float,
    ) -> list[Prediction]:
        """Predictions for the image in `body`, best first.

        Args:
            model_id: As in the URL.
            body: The request's body.
            query: The URL's parameters.
            request_id: Handed on to Triton's log.
            deadline: In the event loop's time, seconds.

        Raises:
            GatewayError: Any of `gateway.errors` but those of reading the body.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await self._classify(model_id, body, query, request_id)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"There was no answer within {self._settings.request_timeout_s:g} s"
                " (GATEWAY_REQUEST_TIMEOUT_S)"
            ) from exc

    async def _classify(
        self, model_id: str, body: bytes, query: Mapping[str, str], request_id: str
    ) -> list[Prediction]:
        spec = await self._models.get(model_id)
        with self._metrics.stage("decode"):
            pixels, parameters = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._decode, body, query, spec
            )
        with self._metrics.stage("infer"):
            logits = await self._triton.infer(
                spec, pixels, self._settings.request_timeout_s, request_id
            )
        with self._metrics.stage("postprocess"):
            activation = parameters.function_to_apply or default_activation(
                spec.problem_type, len(spec.id2label)
            )
            predictions = top_predictions(logits, spec.id2label, activation, parameters.top_k)
        self._metrics.count_image()
        return predictions

    def _decode(
        self, body: bytes, query: Mapping[str, str], spec: ModelSpec
    ) -> tuple[Pixels, Parameters]:
        request = parse_request(body, query)
        pixels = decode(request.image, spec.preprocessing, self._settings.max_image_pixels)
        return pixels, request.parameters
