"""The channel to Triton, and the calls that ask it about models or load them."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import grpc.aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InvalidModel,
    ModelLoadFailed,
    ModelNotReady,
    TritonUnreachable,
)
from gateway.modelspec import (
    CONTRACT_PARAMETER,
    FILES_INPUT_NAME,
    InvalidContract,
    ModelSpec,
    model_id_of,
    parse_model_spec,
    triton_model_name,
)
from gateway.triton.failures import first_line, translate_failure

_MAX_MESSAGE_BYTES: Final = 2**31 - 1
_CHANNEL_OPTIONS: Final = [
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    # Triton is in the same network; an HTTP proxy of the environment is for other hosts.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]
# Seconds for the calls that only ask; Triton answers them from memory.
_ASK_TIMEOUT_S: Final = 5.0

ComputeType = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as Triton serves it now."""

    spec: ModelSpec
    triton_name: str
    contract_sha256: str
    """Of the contract's JSON: differs between two versions of a model."""
    compute_type: ComputeType
    """What its instances run on."""
    max_batch_size: int
    """Most images that Triton takes in one call, at least 1."""
    takes_files: bool
    """Triton decodes JPEGs itself: the model is served by `configs/gpu-jpeg.pbtxt`."""


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """A model in Triton's index of its repository."""

    model_id: str
    is_ready: bool
    reason: str
    """Why it is not; empty if Triton says nothing."""


class TritonClient:
    """The one gRPC channel to a Triton endpoint. A context manager, within one event loop."""

    def __init__(self, url: str) -> None:
        """Open no connection yet.

        Args:
            url: `host:port`.
        """
        self.url = url
        self._channel = grpc.aio.insecure_channel(url, options=_CHANNEL_OPTIONS)
        self.stub: Any = GRPCInferenceServiceStub(self._channel)
        """Triton's gRPC service, for the other modules of this package."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def is_live(self) -> bool:
        """Whether Triton answers and calls itself live."""
        try:
            answer = await self.stub.ServerLive(pb.ServerLiveRequest(), timeout=_ASK_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.live)

    async def is_model_ready(self, model_id: str) -> bool:
        """Whether Triton answers and the model is loaded."""
        request = pb.ModelReadyRequest(name=triton_model_name(model_id))
        try:
            answer = await self.stub.ModelReady(request, timeout=_ASK_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def loaded_model(self, model_id: str) -> LoadedModel:
        """A model with the contract in its `config.pbtxt`.

        Raises:
            ModelNotFound, ModelNotReady, TritonUnreachable, InvalidModel
        """
        name = triton_model_name(model_id)
        try:
            answer = await self.stub.ModelConfig(
                pb.ModelConfigRequest(name=name), timeout=_ASK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as exc:
            raise self.translate(exc, model_id) from exc
        config = answer.config
        if CONTRACT_PARAMETER not in config.parameters:
            raise InvalidModel(
                f"Model {model_id} has no `{CONTRACT_PARAMETER}` parameter in its config.pbtxt;"
                " write it with `vitriton export`"
            )
        contract = config.parameters[CONTRACT_PARAMETER].string_value
        try:
            spec = parse_model_spec(contract)
        except InvalidContract as exc:
            raise InvalidModel(
                f"Model {model_id} has an unusable contract ({exc}); export it again"
            ) from exc
        if spec.model_id != model_id:
            raise InvalidModel(
                f"Model {model_id} has the contract of {spec.model_id}; export it under its own"
                " name"
            )
        # Triton has replaced KIND_AUTO by the kind it chose.
        is_on_gpu = any(g.kind == ModelInstanceGroup.KIND_GPU for g in config.instance_group)
        return LoadedModel(
            spec=spec,
            triton_name=name,
            contract_sha256=hashlib.sha256(contract.encode()).hexdigest(),
            compute_type="gpu" if is_on_gpu else "cpu",
            max_batch_size=max(1, config.max_batch_size),
            takes_files=any(tensor.name == FILES_INPUT_NAME for tensor in config.input),
        )

    async def repository_index(self) -> list[RepositoryEntry]:
        """Every model of the repository, loaded or not, by id.

        Raises:
            TritonUnreachable, InferenceFailed
        """
        try:
            index = await self.stub.RepositoryIndex(
                pb.RepositoryIndexRequest(), timeout=_ASK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as exc:
            raise self.translate(exc, "") from exc
        # One element for each version; a model is ready if one of its versions is.
        found: dict[str, RepositoryEntry] = {}
        for model in sorted(index.models, key=lambda m: (m.name, m.state != "READY")):
            model_id = model_id_of(model.name)
            entry = RepositoryEntry(model_id, model.state == "READY", model.reason)
            found.setdefault(model_id, entry)
        return list(found.values())

    async def load_model(self, model_id: str, timeout_s: float) -> None:
        """Ask Triton, in explicit model control, to load a model from its repository.

        Raises:
            ModelLoadFailed: Triton cannot load it; the message holds Triton's reason.
            ModelNotReady: Triton runs in another model control mode.
            TritonUnreachable, DeadlineExceeded
        """
        request = pb.RepositoryModelLoadRequest(model_name=triton_model_name(model_id))
        try:
            await self.stub.RepositoryModelLoad(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            error = self.translate(exc, model_id)
            if isinstance(error, TritonUnreachable | DeadlineExceeded):
                raise error from exc
            details = exc.details() or ""
            if "not allowed" in details:
                raise ModelNotReady(
                    f"Model {model_id} is not ready, and Triton loads none on demand: it runs"
                    " without --model-control-mode=explicit"
                ) from exc
            raise ModelLoadFailed(
                f"Triton could not load the model {model_id}: {first_line(details)}"
            ) from exc

    def translate(self, exc: grpc.aio.AioRpcError, model_id: str) -> GatewayError:
        """The gateway's error for a failed call about a model; see `translate_failure`."""
        return translate_failure(exc.code().name, exc.details() or "", model_id, self.url)
