"""What Triton serves, as far as the gateway has asked.

A contract is read on a model's first request and again when it is a few seconds old, so that a
model exported anew shows its new labels without a restart.
"""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Final

from gateway.errors import InvalidModel, ModelNotFound, ModelNotReady
from gateway.modelspec import ModelSpec, is_model_id
from gateway.triton import TritonClient

_MAX_AGE_S: Final = 10.0


class ModelDirectory:
    """Contracts by model id. One per process."""

    def __init__(self, triton: TritonClient) -> None:
        self._triton = triton
        self._specs: dict[str, tuple[float, ModelSpec]] = {}
        self._reads: dict[str, asyncio.Task[ModelSpec]] = {}

    async def get(self, model_id: str) -> ModelSpec:
        """The model's contract, at most a few seconds old.

        Raises:
            ModelNotFound, ModelNotReady, TritonUnreachable, InvalidModel
        """
        read_at, spec = self._specs.get(model_id, (0.0, None))
        if spec is not None and monotonic() - read_at < _MAX_AGE_S:
            return spec
        if not is_model_id(model_id):
            raise ModelNotFound(model_id)
        task = self._reads.get(model_id)
        if task is None:
            task = asyncio.create_task(self._read(model_id))
            self._reads[model_id] = task
        # Shielded: one caller that goes away must not fail the others that share the read.
        return await asyncio.shield(task)

    async def all_ready(self) -> list[ModelSpec]:
        """Contracts of every loaded model that has one, by id.

        Raises:
            TritonUnreachable
        """
        specs = []
        for model_id in await self._triton.ready_model_ids():
            # Triton may serve others' models too, and one may be unloaded meanwhile.
            with suppress(InvalidModel, ModelNotFound, ModelNotReady):
                specs.append(await self.get(model_id))
        return specs

    async def _read(self, model_id: str) -> ModelSpec:
        # Out first: what cannot be read again is not kept.
        self._specs.pop(model_id, None)
        try:
            spec = await self._triton.model_spec(model_id)
        finally:
            del self._reads[model_id]
        self._specs[model_id] = (monotonic(), spec)
        return spec
