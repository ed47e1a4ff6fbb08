"""The only importer of tritonclient: Triton's gRPC in, our types and errors out.

Pixels go out as one image a call, `(1, height, width, channels)` uint8; Triton batches.
"""

from typing import Any, Final, Self

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InferenceFailed,
    InvalidModel,
    ModelNotFound,
    ModelNotReady,
    TritonUnreachable,
)
from gateway.modelspec import (
    CONTRACT_PARAMETER,
    INPUT_NAME,
    OUTPUT_NAME,
    InvalidContract,
    ModelSpec,
    model_id_of,
    parse_model_spec,
    triton_model_name,
)
from gateway.pixels import Pixels
from gateway.postprocess import Logits

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


class TritonClient:
    """One gRPC channel to one Triton endpoint. A context manager, within one event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = InferenceServerClient(url, channel_args=_CHANNEL_ARGS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def is_ready(self) -> bool:
        """Whether Triton answers and calls itself ready."""
        try:
            return bool(await self._client.is_server_ready(client_timeout=_ASK_TIMEOUT_S))
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

    async def model_spec(self, model_id: str) -> ModelSpec:
        """The contract in the model's `config.pbtxt`.

        Raises:
            ModelNotFound, ModelNotReady, TritonUnreachable, InvalidModel
        """
        try:
            response = await self._client.get_model_config(
                triton_model_name(model_id), client_timeout=_ASK_TIMEOUT_S
            )
        except InferenceServerException as exc:
            raise translate(exc, model_id, self._url) from exc
        parameters = response.config.parameters
        if CONTRACT_PARAMETER not in parameters:
            raise InvalidModel(
                f"Model {model_id} has no `{CONTRACT_PARAMETER}` parameter in its config.pbtxt;"
                " write it with `vitriton export`"
            )
        try:
            spec = parse_model_spec(parameters[CONTRACT_PARAMETER].string_value)
        except InvalidContract as exc:
            raise InvalidModel(
                f"Model {model_id} has an unusable contract ({exc}); export it again"
            ) from exc
        if spec.model_id != model_id:
            raise InvalidModel(
                f"Model {model_id} has the contract of {spec.model_id}; export it under its own"
                " name"
            )
        return spec

    async def ready_model_ids(self) -> list[str]:
        """Ids of the loaded models, sorted.

        Raises:
            TritonUnreachable, InferenceFailed
        """
        try:
            index = await self._client.get_model_repository_index(client_timeout=_ASK_TIMEOUT_S)
        except InferenceServerException as exc:
            raise translate(exc, "", self._url) from exc
        return sorted({model_id_of(m.name) for m in index.models if m.state == "READY"})

    async def load_model(self, model_id: str, timeout_s: float) -> None:
        """Ask Triton, in explicit model control, to load a model from its repository.

        Raises:
            ModelNotReady: Triton cannot load it; the message holds Triton's reason.
            TritonUnreachable, DeadlineExceeded
        """
        name = triton_model_name(model_id)
        try:
            await self._client.load_model(name, client_timeout=timeout_s)
        except InferenceServerException as exc:
            error = translate(exc, model_id, self._url)
            if isinstance(error, TritonUnreachable | DeadlineExceeded):
                raise error from exc
            raise ModelNotReady(
                f"Triton could not load the model {model_id}: {_one_line(exc.message())}"
            ) from exc

    async def infer(
        self, spec: ModelSpec, pixels: Pixels, timeout_s: float, request_id: str
    ) -> Logits:
        """Logits of one image, shape `(num_labels,)`; `pixels` has the spec's input size.

        Raises:
            ModelNotFound, ModelNotReady, TritonUnreachable, DeadlineExceeded, InferenceFailed
        """
        tensor = InferInput(INPUT_NAME, [1, *pixels.shape], "UINT8")
        tensor.set_data_from_numpy(pixels[np.newaxis])
        try:
            result = await self._client.infer(
                triton_model_name(spec.model_id),
                [tensor],
                outputs=[InferRequestedOutput(OUTPUT_NAME)],
                request_id=request_id,
                client_timeout=timeout_s,
            )
        except InferenceServerException as exc:
            raise translate(exc, spec.model_id, self._url) from exc
        logits: Logits | None = result.as_numpy(OUTPUT_NAME)
        if logits is None or logits.shape[:1] != (1,):
            raise InferenceFailed(f"Triton sent no `{OUTPUT_NAME}` for model {spec.model_id}")
        row: Logits = logits[0]
        return row


def translate(exc: InferenceServerException, model_id: str, url: str) -> GatewayError:
    """Our error for Triton's: one gRPC code stands for several cases, told by the message."""
    code = str(exc.status()).removeprefix("StatusCode.")
    message = str(exc.message())
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
    return first.strip()
