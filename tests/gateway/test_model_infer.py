"""The hand-joined request is what protobuf itself would write."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from gateway.triton.wire import build_request, parse_response


@given(
    st.integers(1, 5),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    st.text(max_size=200),
)
def test_request_reads_back_as_what_was_meant(
    images: int, shape: tuple[int, int, int], request_id: str
) -> None:
    """Name, id, shape, type and every pixel."""
    pixels = [np.full(shape, n, np.uint8) for n in range(images)]

    request = ModelInferRequest.FromString(build_request("a--b", pixels, request_id))

    assert (request.model_name, request.id) == ("a--b", request_id)
    assert [(i.name, i.datatype, tuple(i.shape)) for i in request.inputs] == [
        ("pixel_values", "UINT8", (images, *shape))
    ]
    assert [output.name for output in request.outputs] == ["logits"]
    assert list(request.raw_input_contents) == [b"".join(p.tobytes() for p in pixels)]


def response(shape: tuple[int, ...], name: str = "logits") -> bytes:
    output = ModelInferResponse.InferOutputTensor(name=name, datatype="FP32", shape=shape)
    values = np.arange(np.prod(shape), dtype=np.float32).tobytes()
    return bytes(
        ModelInferResponse(outputs=[output], raw_output_contents=[values]).SerializeToString()
    )


def test_response_gives_each_image_its_row() -> None:
    """In the order of the pixels."""
    logits = parse_response(response((2, 3)), 2)

    assert logits is not None
    assert logits.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_response_of_another_form_is_none() -> None:
    """Another number of images, another output, no output."""
    assert parse_response(response((2, 3)), 1) is None
    assert parse_response(response((6,)), 6) is None
    assert parse_response(response((1, 3), name="other"), 1) is None
    assert parse_response(b"", 1) is None
