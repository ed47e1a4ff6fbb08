"""Requests for `ModelInfer` have what Triton reads; responses give logits or none."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import ModelInferResponse

from gateway.triton.inference import inference_request, read_logits
from gateway.triton.payload import Payload


@given(st.tuples(st.integers(1, 5), st.integers(1, 40)), st.text(max_size=200))
def test_request_has_name_id_type_and_shape(shape: tuple[int, ...], request_id: str) -> None:
    """A request has the model's name, the id, and the name, type and shape of the input."""
    request = inference_request("a--b", Payload("image", shape, [b"x"], 1), request_id)

    assert (request.model_name, request.id) == ("a--b", request_id)
    assert [(i.name, i.datatype, tuple(i.shape)) for i in request.inputs] == [
        ("image", "UINT8", shape)
    ]
    assert [output.name for output in request.outputs] == ["logits"]


def response(shape: tuple[int, ...], name: str = "logits") -> ModelInferResponse:
    output = ModelInferResponse.InferOutputTensor(name=name, datatype="FP32", shape=shape)
    values = np.arange(np.prod(shape), dtype=np.float32).tobytes()
    return ModelInferResponse(outputs=[output], raw_output_contents=[values])


def test_response_has_a_row_for_each_image() -> None:
    """The logits have a row for each image, in the order of the images."""
    logits = read_logits(response((2, 3)), 2)

    assert logits is not None
    assert logits.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_response_of_another_form_has_no_logits() -> None:
    """A response with another output, shape or number of images has no logits."""
    assert read_logits(response((2, 3)), 1) is None
    assert read_logits(response((6,)), 6) is None
    assert read_logits(response((1, 3), name="other"), 1) is None
    assert read_logits(ModelInferResponse(), 1) is None
