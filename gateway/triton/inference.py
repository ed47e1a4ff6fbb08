"""Triton's `ModelInfer`: pictures out, logits back.

Pictures go out as `payload` writes them, in shared memory if Triton is on this host. Triton batches
the pictures of several calls.
"""

from collections.abc import Sequence
from typing import Final

import grpc.aio
import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from gateway.errors import InferenceFailed
from gateway.modelspec import OUTPUT_NAME
from gateway.tensors import Logits, Picture
from gateway.triton.client import LoadedModel, TritonClient
from gateway.triton.payload import Payload, payload
from gateway.triton.shared_memory import Place, SharedMemory

_DATATYPE: Final = "UINT8"


class Inference:
    """Calls to `ModelInfer`. One per process."""

    def __init__(self, triton: TritonClient, shared_memory: SharedMemory | None = None) -> None:
        """Take the channel, and the memory to share with Triton if there is any."""
        self._triton = triton
        self._shared_memory = shared_memory

    async def infer(
        self, model: LoadedModel, pictures: Sequence[Picture], timeout_s: float, request_id: str
    ) -> Logits:
        """Logits of the pictures, shape `(n, num_labels)`.

        Args:
            model: Takes and gives these shapes.
            pictures: At least one and at most the model's `max_batch_size`. Pixels are contiguous
                and of the model's input size; a model that takes no files gets only pixels.
            timeout_s: After so long Triton is told to drop the call.
            request_id: For Triton's log.

        Raises:
            ModelNotFound, ModelNotReady, TritonUnreachable, DeadlineExceeded, InferenceFailed
        """
        content = payload(model, pictures)
        request = inference_request(model.triton_name, content, request_id)
        try:
            response = await self._infer_shared(request, content, timeout_s)
            if response is None:
                request.raw_input_contents.append(b"".join(content.parts))
                response = await self._triton.stub.ModelInfer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise self._triton.translate(exc, model.spec.model_id) from exc
        logits = read_logits(response, len(pictures))
        if logits is None:
            raise InferenceFailed(f"Triton sent no `{OUTPUT_NAME}` for model {model.spec.model_id}")
        return logits

    async def _infer_shared(
        self, request: ModelInferRequest, content: Payload, timeout_s: float
    ) -> ModelInferResponse | None:
        """Triton's response to pictures in shared memory; none if they have to be sent."""
        if self._shared_memory is None:
            return None
        place = self._shared_memory.put(content.parts, content.size)
        if place is None:
            return None
        refer_to_shared_memory(request, place, content.size)
        try:
            return await self._triton.stub.ModelInfer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            if not self._shared_memory.is_unknown(place, exc.details() or ""):
                raise
            request.inputs[0].parameters.clear()
            return None
        finally:
            # After a timeout Triton may still read here while the next call writes. The result of
            # the timed-out call is not used.
            place.region.give_back(place.offset)


def inference_request(triton_name: str, content: Payload, request_id: str) -> ModelInferRequest:
    """The request for a call, without its pictures."""
    tensor = ModelInferRequest.InferInputTensor(
        name=content.name, datatype=_DATATYPE, shape=content.shape
    )
    output = ModelInferRequest.InferRequestedOutputTensor(name=OUTPUT_NAME)
    return ModelInferRequest(
        model_name=triton_name, id=request_id, inputs=[tensor], outputs=[output]
    )


def refer_to_shared_memory(request: ModelInferRequest, place: Place, size: int) -> None:
    """Have Triton read the `size` bytes of the request's pictures at a place in shared memory."""
    tensor = request.inputs[0]
    tensor.parameters["shared_memory_region"].string_param = place.region.name
    tensor.parameters["shared_memory_offset"].int64_param = place.offset
    tensor.parameters["shared_memory_byte_size"].int64_param = size


def read_logits(response: ModelInferResponse, images: int) -> Logits | None:
    """Logits, `(images, num_labels)`; none if the response does not hold these."""
    outputs, contents = response.outputs, response.raw_output_contents
    if len(outputs) != 1 or len(contents) != 1 or outputs[0].name != OUTPUT_NAME:
        return None
    shape = tuple(outputs[0].shape)
    logits: Logits = np.frombuffer(contents[0], np.float32)
    if shape[:1] != (images,) or len(shape) != 2 or logits.size != shape[0] * shape[1]:
        return None
    return logits.reshape(shape)
