"""Cold starts: have Triton load a model that a request asks for, and estimate how long that takes.

Needs Triton's explicit model control.
"""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Final

from gateway.errors import (
    GatewayError,
    ModelLoadFailed,
    ModelLoading,
    ModelNotFound,
    ModelTooBusy,
)
from gateway.models.directory import ModelDirectory
from gateway.observability.metrics import Metrics
from gateway.request import Options
from gateway.settings import Settings
from gateway.triton.client import TritonClient

# Seconds a load is expected to take before any has been seen; the hosted API's first figure.
_FIRST_ESTIMATE_S: Final = 20.0
# The least estimate: a load that takes longer than expected may end at any moment.
_LEAST_ESTIMATE_S: Final = 1.0
# A load that failed is not tried again for so long: each try costs Triton a process.
_FAILURE_KEPT_S: Final = 30.0
_LOAD_TIMEOUT_S: Final = 600.0


class ModelLoader:
    """Loads models on demand. One per process; each model has one load at a time."""

    def __init__(
        self, settings: Settings, triton: TritonClient, models: ModelDirectory, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._triton = triton
        self._models = models
        self._metrics = metrics
        self._loads: dict[str, tuple[float, asyncio.Task[GatewayError | None]]] = {}
        self._durations_s: dict[str, float] = {}
        self._failures: dict[str, tuple[float, ModelLoadFailed]] = {}

    async def load(self, model_id: str, options: Options) -> None:
        """Have Triton load a model of its repository, and wait as long as the options say.

        Raises:
            ModelNotFound: The repository has no such model.
            ModelLoading: The time to wait is over, or the options forbid loading.
            ModelTooBusy: The time to wait is over, for a caller that asked to wait.
            ModelLoadFailed: Triton cannot load it.
            ModelNotReady, TritonUnreachable
        """
        if model_id not in await self._models.index():
            raise ModelNotFound(model_id)
        failed_at, failure = self._failures.get(model_id, (0.0, None))
        if failure is not None and monotonic() - failed_at < _FAILURE_KEPT_S:
            # A new error: one that is raised again and again grows with each traceback.
            raise ModelLoadFailed(str(failure))
        if not options.load_model:
            raise ModelLoading(model_id, self._remaining_s(model_id))
        load = self._running_load(model_id)
        wait_s = self._wait_s(options)
        done, _ = await asyncio.wait({load}, timeout=wait_s)
        if not done and options.wait_for_model:
            raise ModelTooBusy(wait_s)
        if not done:
            raise ModelLoading(model_id, self._remaining_s(model_id))
        error = load.result()
        if error is not None:
            try:
                # Without the traceback of the other callers that waited for this load.
                raise error.with_traceback(None)
            finally:
                # See `gateway.concurrency.ThreadPool.run`: no cycle of an error and this frame.
                del error, load, done

    def _wait_s(self, options: Options) -> float:
        longest = self._settings.wait_for_model_max_s
        if options.wait_for_model:
            return longest
        if options.scale_up_timeout_s is not None:
            # Never less than without the option: some clients repeat a 503 at once.
            return max(self._settings.cold_start_wait_s, min(options.scale_up_timeout_s, longest))
        return self._settings.cold_start_wait_s

    def _running_load(self, model_id: str) -> asyncio.Task[GatewayError | None]:
        load = self._loads.get(model_id)
        if load is None:
            load = monotonic(), asyncio.create_task(self._load(model_id))
            self._loads[model_id] = load
        return load[1]

    async def _load(self, model_id: str) -> GatewayError | None:
        """Load the model and return its error, as no caller may be left to raise it to."""
        start = monotonic()
        try:
            await self._triton.load_model(model_id, _LOAD_TIMEOUT_S)
        except ModelLoadFailed as exc:
            self._failures[model_id] = (monotonic(), exc)
            return exc
        except GatewayError as exc:
            return exc
        finally:
            self._metrics.load_seconds.observe(monotonic() - start)
            del self._loads[model_id]
        self._failures.pop(model_id, None)
        self._durations_s[model_id] = monotonic() - start
        return None

    def _remaining_s(self, model_id: str) -> float:
        """Seconds that a load will still take, estimated from the last load of this model.

        Before its first load the slowest load of any model is the estimate.
        """
        slowest = max(self._durations_s.values(), default=_FIRST_ESTIMATE_S)
        expected = self._durations_s.get(model_id, slowest)
        started_at, _ = self._loads.get(model_id, (monotonic(), None))
        return max(_LEAST_ESTIMATE_S, expected - (monotonic() - started_at))

    async def aclose(self) -> None:
        """Stop waiting for loads; Triton goes on with them."""
        loads = [load for _, load in self._loads.values()]
        for load in loads:
            load.cancel()
        for load in loads:
            with suppress(asyncio.CancelledError):
                await load
