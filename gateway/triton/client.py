"""Calls to Triton: its gRPC in, our types and errors out.

Images go out as `(n, height, width, channels)` uint8, `n` being those that were ready at the same
moment; Triton batches what several calls bring.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import grpc.aio
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup
from tritonclient.utils import InferenceServerException

from gateway.classification.postprocess import Logits
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InferenceFailed,
    InvalidModel,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotReady,
    TritonUnreachable,
)
from gateway.imaging.pixels import Pixels
from gateway.modelspec import (
    CONTRACT_PARAMETER,
    OUTPUT_NAME,
    InvalidContract,
    ModelSpec,
    model_id_of,
    parse_model_spec,
    triton_model_name,
)
from gateway.triton.shared_memory import SharedPixels
from gateway.triton.wire import METHOD, build_request, build_shared_request, parse_response

_MAX_MESSAGE_BYTES: Final = 2**31 - 1
# tritonclient replaces its own channel arguments by these, so the sizes are said again.
_CHANNEL_ARGS: Final = [
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    # Triton is a neighbour; a proxy of the environment is for the world outside.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]
# Seconds for the calls that only ask; Triton answers them from memory.
_ASK_TIMEOUT_S: Final = 5.0
_REASON_CHARS: Final = 400


ComputeType = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as Triton serves it now."""

    spec: ModelSpec
    contract_sha256: str
    """Of the contract's JSON: tells one version of a model from the next."""
    compute_type: ComputeType
    """What its instances run on."""
    max_batch_size: int
    """Most images that Triton takes in one call, at least 1."""


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """A model in Triton's index of its repository."""

    model_id: str
    is_ready: bool
    reason: str
    """Why it is not; empty if Triton says nothing."""


class TritonClient:
    """One gRPC channel to one Triton endpoint. A context manager, within one event loop."""

    def __init__(self, url: str, shared_memory_bytes: int = 0) -> None:
        """Open no connection yet.

        Args:
            url: `host:port`.
            shared_memory_bytes: Memory to share with a Triton on this host; 0 to send all pixels.
        """
        self._url = url
        self._client: Any = InferenceServerClient(url, channel_args=_CHANNEL_ARGS)
        self._shared = SharedPixels(self._client, shared_memory_bytes)
        # The one call that is made for every image; it takes and gives bytes.
        self._channel = grpc.aio.insecure_channel(url, options=_CHANNEL_ARGS)
        self._model_infer: Any = self._channel.unary_unary(METHOD)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._shared.aclose()
        await self._channel.close()
        await self._client.close()

    async def is_live(self) -> bool:
        """Whether Triton answers and calls itself live."""
        try:
            return bool(await self._client.is_server_live(client_timeout=_ASK_TIMEOUT_S))
        except InferenceServerException:
            return False

    async def is_model_ready(self, model_id: str) -> bool:
        """Whether Triton answers and the model is loaded."""
        try:
            return bool(
                await self._client.is_model_ready(
                    triton_model_name(model_id), client_timeout=_ASK_TIMEOUT_S
                )
            )
        except InferenceServerException:
            return False

    async def loaded_model(self, model_id: str) -> LoadedModel:
        """A model with the contract in its `config.pbtxt`.

        Raises:
            ModelNotFound, ModelNotReady, TritonUnreachable, InvalidModel
        """
        try:
            response = await self._client.get_model_config(
                triton_model_name(model_id), client_timeout=_ASK_TIMEOUT_S
            )
        except InferenceServerException as exc:
            raise self._translate(exc, model_id) from exc
        config = response.config
        parameters = config.parameters
        if CONTRACT_PARAMETER not in parameters:
            raise InvalidModel(
                f"Model {model_id} has no `{CONTRACT_PARAMETER}` parameter in its config.pbtxt;"
                " write it with `vitriton export`"
            )
        contract = parameters[CONTRACT_PARAMETER].string_value
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
        # Triton has put a kind in the place of KIND_AUTO by now.
        on_gpu = any(g.kind == ModelInstanceGroup.KIND_GPU for g in config.instance_group)
        return LoadedModel(
            spec,
            hashlib.sha256(contract.encode()).hexdigest(),
            "gpu" if on_gpu else "cpu",
            max(1, config.max_batch_size),
        )

    async def repository_index(self) -> list[RepositoryEntry]:
        """Every model of the repository, loaded or not, by id.

        Raises:
            TritonUnreachable, InferenceFailed
        """
        try:
            index = await self._client.get_model_repository_index(client_timeout=_ASK_TIMEOUT_S)
        except InferenceServerException as exc:
            raise self._translate(exc, "") from exc
        # One element a version; a model is ready if one of them is.
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
        name = triton_model_name(model_id)
        try:
            await self._client.load_model(name, client_timeout=timeout_s)
        except InferenceServerException as exc:
            error = self._translate(exc, model_id)
            if isinstance(error, TritonUnreachable | DeadlineExceeded):
                raise error from exc
            if "not allowed" in exc.message():
                raise ModelNotReady(
                    f"Model {model_id} is not ready, and Triton loads none on demand: it runs"
                    " without --model-control-mode=explicit"
                ) from exc
            raise ModelLoadFailed(
                f"Triton could not load the model {model_id}: {_one_line(exc.message())}"
            ) from exc

    async def infer(
        self, spec: ModelSpec, pixels: Sequence[Pixels], timeout_s: float, request_id: str
    ) -> Logits:
        """Logits of the images, shape `(n, num_labels)`.

        Args:
            spec: The model.
            pixels: At least one image and at most the model's `max_batch_size`, each contiguous
                and of the spec's input size.
            timeout_s: After so long Triton is told to forget it.
            request_id: For Triton's log.

        Raises:
            ModelNotFound, ModelNotReady, TritonUnreachable, DeadlineExceeded, InferenceFailed
        """
        name = triton_model_name(spec.model_id)
        try:
            response = await self._infer_shared(name, pixels, timeout_s, request_id)
            if response is None:
                request = build_request(name, pixels, request_id)
                response = await self._model_infer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise translate(exc.code().name, exc.details() or "", spec.model_id, self._url) from exc
        logits = parse_response(response, len(pixels))
        if logits is None:
            raise InferenceFailed(f"Triton sent no `{OUTPUT_NAME}` for model {spec.model_id}")
        return logits

    async def _infer_shared(
        self, name: str, pixels: Sequence[Pixels], timeout_s: float, request_id: str
    ) -> bytes | None:
        """Triton's answer to pixels in shared memory; none if they have to be sent."""
        place = self._shared.put(pixels)
        if place is None:
            return None
        shape = (len(pixels), *pixels[0].shape)
        request = build_shared_request(name, shape, place.region.name, place.offset, request_id)
        try:
            response: bytes = await self._model_infer(request, timeout=timeout_s)
            return response
        except grpc.aio.AioRpcError as exc:
            if not self._shared.is_unknown(place, exc.details() or ""):
                raise
            return None
        finally:
            # After a timeout Triton may still read what the next call writes: nobody waits for it.
            place.region.give_back(place.offset)

    def _translate(self, exc: InferenceServerException, model_id: str) -> GatewayError:
        code = str(exc.status()).removeprefix("StatusCode.")
        return translate(code, str(exc.message()), model_id, self._url)


def translate(code: str, message: str, model_id: str, url: str) -> GatewayError:
    """Our error for Triton's: one gRPC code stands for several cases, told by the message."""
    if code == "NOT_FOUND":
        if "has no available versions" in message:
            return ModelNotReady(f"Model {model_id} is not ready")
        return ModelNotFound(model_id)
    if code == "DEADLINE_EXCEEDED" or "Request timeout expired" in message:
        return DeadlineExceeded(f"Model {model_id} gave no answer in time")
    if code == "UNAVAILABLE":
        if "is not at ready state" in message:
            return ModelNotReady(f"Model {model_id} is not ready")
        return TritonUnreachable(f"Triton does not answer at {url} (GATEWAY_TRITON_URL)")
    return InferenceFailed(f"Model {model_id} failed on this request")


def _one_line(message: str) -> str:
    """Triton's message without its line breaks and tracebacks."""
    first = next((line for line in message.splitlines() if line.strip()), "no reason given")
    return first.strip()[:_REASON_CHARS]
