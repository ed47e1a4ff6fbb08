"""The models that Triton serves: their contracts, and the index of the repository.

A contract is read on a model's first request, and again when it is a few seconds old. So a model
that is exported again shows its new labels without a restart.
"""

from contextlib import suppress
from time import monotonic
from typing import Final

from gateway.concurrency import Coalescing
from gateway.errors import InvalidModel, ModelNotFound, ModelNotReady
from gateway.modelspec import is_model_id
from gateway.triton.client import LoadedModel, RepositoryEntry, TritonClient

_MAX_AGE_S: Final = 10.0
# Triton reads the repository's folders for an index, and every unknown id asks for one.
_INDEX_MAX_AGE_S: Final = 1.0


class ModelDirectory:
    """Contracts by model id, and the repository's index. One per process."""

    def __init__(self, triton: TritonClient) -> None:
        self._triton = triton
        self._models: dict[str, tuple[float, LoadedModel]] = {}
        self._reads: Coalescing[str, LoadedModel] = Coalescing()
        self._index: tuple[float, dict[str, RepositoryEntry]] | None = None
        self._index_reads: Coalescing[None, dict[str, RepositoryEntry]] = Coalescing()

    async def get(self, model_id: str) -> LoadedModel:
        """The model with its contract, at most a few seconds old.

        Raises:
            ModelNotFound, ModelNotReady, TritonUnreachable, InvalidModel
        """
        read_at, model = self._models.get(model_id, (0.0, None))
        if model is not None and monotonic() - read_at < _MAX_AGE_S:
            return model
        if not is_model_id(model_id):
            raise ModelNotFound(model_id)
        model, _ = await self._reads.run(model_id, lambda: self._read(model_id))
        return model

    def forget(self, model_id: str) -> None:
        """Have the model's contract read again; Triton may have unloaded it."""
        self._models.pop(model_id, None)

    async def all_ready(self) -> list[LoadedModel]:
        """Every loaded model that has a contract, by id.

        Raises:
            TritonUnreachable
        """
        models = []
        for entry in (await self.index()).values():
            if not entry.is_ready:
                continue
            # Triton may serve models without a contract, and a model may be unloaded meanwhile.
            with suppress(InvalidModel, ModelNotFound, ModelNotReady):
                models.append(await self.get(entry.model_id))
        return models

    async def index(self) -> dict[str, RepositoryEntry]:
        """Triton's index of its repository by model id, about a second old at most.

        Raises:
            TritonUnreachable, InferenceFailed
        """
        if self._index is not None and monotonic() - self._index[0] < _INDEX_MAX_AGE_S:
            return self._index[1]
        index, _ = await self._index_reads.run(None, self._read_index)
        return index

    async def _read(self, model_id: str) -> LoadedModel:
        # Forgotten first: a contract that cannot be read again is not kept.
        self.forget(model_id)
        model = await self._triton.loaded_model(model_id)
        self._models[model_id] = (monotonic(), model)
        return model

    async def _read_index(self) -> dict[str, RepositoryEntry]:
        entries = await self._triton.repository_index()
        index = {entry.model_id: entry for entry in entries}
        self._index = (monotonic(), index)
        return index
