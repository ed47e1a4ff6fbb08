"""Bodies in every form clients send, and none that crashes the parser."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.schemas import Parameters, decode_base64, parse_request

PNG = b"\x89PNG\r\n\x1a\n and so on"


@given(st.binary(max_size=300), st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
def test_any_bytes_are_a_request_or_an_error_of_ours(body: bytes, query: dict[str, str]) -> None:
    """No other exception leaves the parser."""
    try:
        assert parse_request(body, query).image
    except GatewayError as exc:
        assert exc.status == 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries({}, optional={"inputs": json_values, "parameters": json_values})
    | st.dictionaries(st.sampled_from(["inputs", "image", "parameters", "options"]), json_values)
)
def test_any_json_object_is_a_request_or_an_error_of_ours(document: dict[str, object]) -> None:
    """Wrong types in any place are the caller's error, with a message."""
    try:
        parse_request(json.dumps(document).encode(), {})
    except GatewayError as exc:
        assert exc.status == 400
        assert str(exc)


@given(st.binary(min_size=1, max_size=200), st.integers(0, 3))
def test_every_way_of_writing_base64_is_read(data: bytes, form: int) -> None:
    """Plain, with line breaks, URL-safe without padding, as a data URI."""
    written = [
        base64.b64encode(data),
        base64.encodebytes(data),
        base64.urlsafe_b64encode(data).rstrip(b"="),
        b"data:image/png;base64," + base64.b64encode(data),
    ][form]

    assert decode_base64(written) == data


def test_parameters_of_the_query_apply_to_a_raw_image() -> None:
    """Numbers become numbers, foreign keys are nobody's mistake."""
    request = parse_request(PNG, {"top_k": "3", "function_to_apply": "Sigmoid", "utm": "x"})

    assert request.image == PNG
    assert request.parameters == Parameters("sigmoid", 3)


HUGE = "%" * 1_000_000


@pytest.mark.parametrize(
    ("document", "query"),
    [
        ({"inputs": HUGE}, {}),
        ({"x": HUGE}, {}),
        ({"inputs": "", "parameters": {HUGE: 1}}, {}),
        ({"inputs": "", "parameters": {"top_k": HUGE}}, {}),
        ({"inputs": "", "parameters": {"function_to_apply": HUGE}}, {}),
        ({"inputs": ""}, {"top_k": "9" * 5000}),
    ],
)
def test_errors_do_not_echo_the_whole_input(
    document: dict[str, object], query: dict[str, str]
) -> None:
    """Bad input of megabytes gives a message of bytes."""
    with pytest.raises(GatewayError) as caught:
        parse_request(json.dumps(document).encode(), query)

    assert len(str(caught.value)) < 300
