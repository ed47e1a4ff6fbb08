"""`parse_request` reads bodies in every form that clients send, and refuses all others."""

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidParameters, MalformedRequest
from gateway.http.schemas import decode_base64, parse_request
from gateway.request import ClassificationRequest, Options, Parameters

MAX_INPUTS = 4
PNG = b"\x89PNG\r\n\x1a\n and so on"
B64 = base64.b64encode(PNG).decode()


def parse(body: bytes, content_type: str, query: dict[str, str]) -> ClassificationRequest:
    return parse_request(body, {"content-type": content_type}, query, MAX_INPUTS)


@given(
    st.binary(max_size=300),
    st.sampled_from(["", "image/png", "multipart/form-data", "multipart/form-data; boundary=a"])
    | st.text(max_size=30),
    st.dictionaries(st.text(max_size=20), st.text(max_size=20)),
)
def test_any_bytes_are_a_request_or_a_400(
    body: bytes, content_type: str, query: dict[str, str]
) -> None:
    """Any body, content type and query give a request or a 400."""
    try:
        assert parse(body, content_type, query).images
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
def test_any_json_object_is_a_request_or_a_400(document: dict[str, object]) -> None:
    """Any JSON object gives a request or a 400 with a message."""
    try:
        parse(json.dumps(document).encode(), "", {})
    except GatewayError as exc:
        assert exc.status == 400
        assert str(exc)


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf \r\n", b"\n\t "])
def test_mark_and_space_before_base64_text_are_ignored(before: bytes) -> None:
    """A byte order mark and white space before base64 text are ignored."""
    assert parse(before + B64.encode(), "", {}).images == (PNG,)


@given(st.binary(min_size=1, max_size=200), st.integers(0, 3))
def test_every_way_of_writing_base64_is_read(data: bytes, form: int) -> None:
    """Base64 is read plain, in lines, URL-safe without padding, and as a data URI."""
    written = [
        base64.b64encode(data),
        base64.encodebytes(data),
        base64.urlsafe_b64encode(data).rstrip(b"="),
        b"data:image/png;base64," + base64.b64encode(data),
    ][form]

    assert decode_base64(written) == data


def test_parameters_of_the_query_apply_to_a_raw_image() -> None:
    """The query's `top_k` and function apply to a raw image; its other keys are ignored."""
    request = parse(PNG, "", {"top_k": "3", "function_to_apply": "Sigmoid", "utm": "x"})

    assert request.images == (PNG,)
    assert request.parameters == Parameters("sigmoid", 3)


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """A form's body and content type; each part is its disposition and its content."""
    body = b"".join(
        b"--frontier\r\nContent-Disposition: form-data; "
        + head.encode()
        + b"\r\n\r\n"
        + content
        + b"\r\n"
        for head, content in parts
    )
    return body + b"--frontier--\r\n", "Multipart/Form-Data; boundary=frontier"


FILE = 'name="anything"; filename="cat.png"'


@pytest.mark.parametrize(
    ("parts", "query", "parameters"),
    [
        ([(FILE, PNG)], {}, Parameters()),
        ([(FILE, PNG)], {"top_k": "2"}, Parameters(top_k=2)),
        ([('name="top_k"', b"3"), (FILE, PNG)], {"top_k": "2"}, Parameters(top_k=3)),
        ([('name="inputs"', B64.encode())], {}, Parameters()),
        # Without a filename: npm's form-data, Spring, Apache HttpClient.
        ([('name="file"', PNG)], {}, Parameters()),
        ([('name="data"', PNG)], {}, Parameters()),
        ([('name="data"\r\nContent-Type: image/png', PNG)], {}, Parameters()),
        ([('name="x"\r\nContent-Type: application/octet-stream', PNG)], {}, Parameters()),
        ([("name=\"x\"; filename*=UTF-8''k%C3%A4se.png", B64.encode())], {}, Parameters()),
        ([(FILE, B64.encode())], {}, Parameters()),
        # JSON, as in a JSON body.
        (
            [('name="parameters"', b'{"top_k": 3}'), (FILE, PNG)],
            {"top_k": "2"},
            Parameters(None, 3),
        ),
        (
            [('name="parameters"\r\nContent-Type: application/json', b'{"top_k": 4}'), (FILE, PNG)],
            {},
            Parameters(None, 4),
        ),
        ([('name="parameters"', b"null"), (FILE, PNG)], {"top_k": "2"}, Parameters(None, 2)),
        # Fields with filenames: requests' `files`, and FormData with a Blob.
        (
            [('name="parameters"; filename="parameters"', b'{"top_k": 3}'), (FILE, PNG)],
            {},
            Parameters(None, 3),
        ),
        (
            [
                ('name="parameters"; filename="blob"\r\nContent-Type: application/json', b"{}"),
                ('name="options"; filename="blob"\r\nContent-Type: application/json', b"{}"),
                ('name="top_k"; filename="top_k"', b"3"),
                (FILE, PNG),
            ],
            {},
            Parameters(),
        ),
        # A text that begins as a format does.
        ([('name="brand"', b"BMW"), ('name="page"', b"P4\n"), (FILE, PNG)], {}, Parameters()),
        # Blank fields and files that nobody chose.
        ([('name="top_k"', b""), (FILE, PNG)], {"top_k": "2"}, Parameters(None, 2)),
        ([('name="parameters"', b" "), (FILE, PNG)], {}, Parameters()),
        ([('name="file"; filename=""', b""), (FILE, PNG)], {}, Parameters()),
    ],
)
def test_form_gives_its_image_and_parameters(
    parts: list[tuple[str, bytes]], query: dict[str, str], parameters: Parameters
) -> None:
    """A form gives its image, and its fields as parameters, which win over the query."""
    request = parse(*form(*parts), query)

    assert request.images == (PNG,)
    assert request.parameters == parameters
    assert not request.is_list


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (*form(('name="top_k"', b"3")), "no file"),
        (*form(*[(FILE, PNG)] * 17), "more than 16 parts"),
        (*form((FILE, PNG), (FILE, PNG)), "2 files, and one image is the limit"),
        (
            *form((FILE, PNG), ('name="parameters"', b"{top_k: 3}")),
            "`parameters` is not valid JSON",
        ),
        (*form((FILE, PNG), ('name="parameters"', b"[1]")), "`parameters` must be a JSON object"),
        (*form((FILE, PNG), ('name="parameters"', b'{"k": 1}')), "unexpected parameter 'k'"),
        (*form((FILE, PNG), ('name="options"', b"yes")), "`options` is not valid JSON"),
        (form((FILE, PNG))[0], "multipart/form-data", "names no boundary"),
        (form((FILE, PNG))[0], 'multipart/form-data; boundary=""', "names no boundary"),
        (form((FILE, PNG))[0][3:], "multipart/form-data; boundary=frontier", "no well-formed"),
        (form((FILE, PNG))[0][:70], "multipart/form-data; boundary=frontier", "last boundary"),
        (form((FILE, PNG))[0][:-16], "multipart/form-data; boundary=frontier", "last boundary"),
    ],
)
def test_unusable_form_is_refused(body: bytes, content_type: str, message: str) -> None:
    """A damaged form, or one without exactly one image, is refused with the reason."""
    with pytest.raises(GatewayError, match=message):
        parse(body, content_type, {})


def test_form_gives_its_options() -> None:
    """The field `options` of a form is read as JSON, as in a JSON body."""
    body, content_type = form((FILE, PNG), ('name="options"', b'{"use_cache": false}'))

    assert parse(body, content_type, {}).options == Options(use_cache=False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (json.dumps(B64).encode(), "a JSON string; send the image's bytes, or JSON"),
        (json.dumps([B64]).encode(), "a JSON list"),
        (b' [{"inputs": "x"}]', "a JSON list"),
        *[
            (mark + json.dumps({"inputs": B64}).encode(encoding), "JSON in UTF-16 or UTF-32")
            for encoding, mark in [
                ("utf-16", b""),
                ("utf-16-le", b""),
                ("utf-16-be", b""),
                ("utf-16-be", b"\xfe\xff"),
                ("utf-32", b""),
                ("utf-32-be", b""),
            ]
        ],
        (b"inputs=" + B64.encode(), "form-encoded"),
        (b"image=%2F9j%2F4AAQ", "form-encoded"),
        (b"https://example.org/cat.jpg", "a URL"),
        (b"demo/digits/7.png", "a file's name, not its content; with curl write an @"),
        (b"my cat.JPEG\n", "a file's name"),
    ],
)
def test_body_sent_by_mistake_is_named(body: bytes, message: str) -> None:
    """The error for a common mistake names it and says what to send."""
    with pytest.raises(MalformedRequest, match=re.escape(message)):
        parse(body, "application/json", {})


@pytest.mark.parametrize("value", [3, 3.0, 1e3, 1e30])
def test_top_k_may_be_an_integer_written_as_a_float(value: float) -> None:
    """`top_k` in JSON may be an integer that is written as a float."""
    body = json.dumps({"inputs": B64, "parameters": {"top_k": value}}).encode()

    assert parse(body, "", {}).parameters.top_k == value


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("3.0", 3), ("1e3", 1000), ("", 5)])
def test_top_k_of_a_query_has_the_same_forms(text: str, value: int) -> None:
    """`top_k` in a query has the same forms as in JSON; an empty one is ignored."""
    assert parse(PNG, "", {"top_k": text}).parameters.top_k == value


@pytest.mark.parametrize("text", ["2.5", "0", "0.0", "-1", "1e-1", "1e999", "nan", "٣", "3 4"])
def test_top_k_of_a_query_that_is_no_integer_is_refused(text: str) -> None:
    """A `top_k` in a query that is not a positive integer is refused."""
    with pytest.raises(InvalidParameters, match="top_k must be an integer"):
        parse(PNG, "", {"top_k": text})


def test_list_of_inputs_is_bounded() -> None:
    """A list of up to `MAX_INPUTS` images is read, also a list of one or none."""
    for count in (0, 1):
        body = json.dumps({"inputs": [B64] * count, "options": {"use_cache": False}}).encode()
        request = parse(body, "", {})
        assert request.images == (PNG,) * count
        assert request.is_list
        assert request.options == Options(use_cache=False)
    with pytest.raises(GatewayError, match="GATEWAY_MAX_INPUTS"):
        parse(json.dumps({"inputs": [B64] * (MAX_INPUTS + 1)}).encode(), "", {})


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
    """The error for an input of a megabyte has less than 300 characters."""
    with pytest.raises(GatewayError) as caught:
        parse(json.dumps(document).encode(), "", query)

    assert len(str(caught.value)) < 300
