"""Triton's `ModelInfer`: images out as pixels, logits back.

Images go out as `(n, height, width, channels)` uint8, in shared memory if Triton is on this host.
Triton batches the images of several calls.
"""

import math
from collections.abc import Sequence
from typing import Final

import grpc.aio
import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from gateway.errors import InferenceFailed
from gateway.modelspec import INPUT_NAME, OUTPUT_NAME
from gateway.tensors import Logits, Pixels
from gateway.triton.client import LoadedModel, TritonClient
from gateway.triton.shared_memory import Place, SharedMemory

_DATATYPE: Final = "UINT8"


class Inference:
    """Calls to `ModelInfer`. One per process."""

    def __init__(self, triton: TritonClient, shared_memory: SharedMemory | None = None) -> None:
        """Take the channel, and the memory to share with Triton if there is any."""
        self._triton = triton
        self._shared_memory = shared_memory

    async def infer(
        self, model: LoadedModel, pixels: Sequence[Pixels], timeout_s: float, request_id: str
    ) -> Logits:
        """Logits of the images, shape `(n, num_labels)`.

        Args:
            model: Takes and gives these shapes.
            pixels: At least one image and at most the model's `max_batch_size`, each contiguous
                and of the model's input size.
            timeout_s: After so long Triton is told to drop the call.
            request_id: For Triton's log.

        Raises:
            ModelNotFound, ModelNotReady, TritonUnreachable, DeadlineExceeded, InferenceFailed
        """
        request = inference_request(model.triton_name, pixels, request_id)
        try:
            response = await self._infer_shared(request, pixels, timeout_s)
            if response is None:
                request.raw_input_contents.append(b"".join(image.data for image in pixels))
                response = await self._triton.stub.ModelInfer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise self._triton.translate(exc, model.spec.model_id) from exc
        logits = read_logits(response, len(pixels))
        if logits is None:
            raise InferenceFailed(f"Triton sent no `{OUTPUT_NAME}` for model {model.spec.model_id}")
        return logits

    async def _infer_shared(
        self, request: ModelInferRequest, pixels: Sequence[Pixels], timeout_s: float
    ) -> ModelInferResponse | None:
        """Triton's response to pixels in shared memory; none if they have to be sent."""
        if self._shared_memory is None:
            return None
        place = self._shared_memory.put(pixels)
        if place is None:
            return None
        refer_to_shared_memory(request, place)
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


def inference_request(
    triton_name: str, pixels: Sequence[Pixels], request_id: str
) -> ModelInferRequest:
    """The request for images of one shape, without their pixels."""
    shape = (len(pixels), *pixels[0].shape)
    tensor = ModelInferRequest.InferInputTensor(name=INPUT_NAME, datatype=_DATATYPE, shape=shape)
    output = ModelInferRequest.InferRequestedOutputTensor(name=OUTPUT_NAME)
    return ModelInferRequest(
        model_name=triton_name, id=request_id, inputs=[tensor], outputs=[output]
    )


def refer_to_shared_memory(request: ModelInferRequest, place: Place) -> None:
    """Have Triton read the pixels of the request at a place in shared memory."""
    tensor = request.inputs[0]
    tensor.parameters["shared_memory_region"].string_param = place.region.name
    tensor.parameters["shared_memory_offset"].int64_param = place.offset
    tensor.parameters["shared_memory_byte_size"].int64_param = math.prod(tensor.shape)


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
