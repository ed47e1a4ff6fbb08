"""Triton's `ModelInfer` on the wire: requests joined from a prebuilt head and the pixels' bytes.

Pure. Of a request only the pixels change, and protobuf allows its fields in any order and to be
concatenated, so the head of each batch size is serialised once.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from gateway.classification.postprocess import Logits
from gateway.imaging.pixels import Pixels
from gateway.modelspec import INPUT_NAME, OUTPUT_NAME

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"

# Tags of length-delimited fields: `id`, and one element of `raw_input_contents`.
_ID: Final = bytes([3 << 3 | 2])
_RAW_INPUT: Final = bytes([7 << 3 | 2])
_HEADS: Final = 1024


def build_request(triton_name: str, pixels: Sequence[Pixels], request_id: str) -> bytes:
    """The request for a batch of images of one shape, `(height, width, channels)`.

    Args:
        triton_name: The model's name.
        pixels: Contiguous, at least one.
        request_id: Goes into Triton's log.
    """
    request = request_id.encode()
    size = pixels[0].nbytes * len(pixels)
    return b"".join(
        [
            _head(triton_name, (len(pixels), *pixels[0].shape)),
            _ID,
            _varint(len(request)),
            request,
            _RAW_INPUT,
            _varint(size),
            *(image.data for image in pixels),
        ]
    )


@lru_cache(maxsize=_HEADS)
def _head(triton_name: str, shape: tuple[int, ...]) -> bytes:
    return bytes(_request(triton_name, shape).SerializeToString())


def _request(triton_name: str, shape: tuple[int, ...]) -> ModelInferRequest:
    tensor = ModelInferRequest.InferInputTensor(name=INPUT_NAME, datatype="UINT8", shape=shape)
    output = ModelInferRequest.InferRequestedOutputTensor(name=OUTPUT_NAME)
    return ModelInferRequest(model_name=triton_name, inputs=[tensor], outputs=[output])


def _varint(number: int) -> bytes:
    """Protobuf's encoding of a number: seven bits a byte, the lowest ones first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def build_shared_request(
    triton_name: str, shape: tuple[int, ...], region: str, offset: int, request_id: str
) -> bytes:
    """The request for a batch of images in shared memory.

    Args:
        triton_name: The model's name.
        shape: `(n, height, width, channels)`.
        region: The name by which Triton knows the memory.
        offset: Where in it the images are, one behind the other.
        request_id: Goes into Triton's log.
    """
    request = _request(triton_name, shape)
    request.id = request_id
    parameters = request.inputs[0].parameters
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_offset"].int64_param = offset
    parameters["shared_memory_byte_size"].int64_param = math.prod(shape)
    return bytes(request.SerializeToString())


def parse_response(data: bytes, images: int) -> Logits | None:
    """Logits, `(images, num_labels)`; none if the response is not one for so many."""
    response = ModelInferResponse.FromString(data)
    outputs, contents = response.outputs, response.raw_output_contents
    if len(outputs) != 1 or len(contents) != 1 or outputs[0].name != OUTPUT_NAME:
        return None
    shape = tuple(outputs[0].shape)
    logits: Logits = np.frombuffer(contents[0], np.float32)
    if shape[:1] != (images,) or len(shape) != 2 or logits.size != shape[0] * shape[1]:
        return None
    return logits.reshape(shape)
