"""No body and no headers make the service fail; Hypothesis tries 2,000 requests."""

import base64
import json
from typing import Final

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pictures import PICTURES

EXAMPLES: Final = 2000

small_pictures = st.sampled_from([data for data in PICTURES.values() if len(data) < 20_000])


@st.composite
def damaged_pictures(draw: st.DrawFn) -> bytes:
    """A real file with some bytes changed, or cut short, or longer."""
    data = bytearray(draw(small_pictures))
    # Most of what can go wrong is in the first bytes.
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, min(len(data), 400) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=20))


pictures = small_pictures | damaged_pictures() | st.binary(max_size=100)
base64_texts = pictures.map(lambda data: base64.b64encode(data).decode()) | st.text(max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | base64_texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)
parameters = st.fixed_dictionaries(
    {},
    optional={
        "top_k": st.integers(-2, 20) | json_values,
        "function_to_apply": st.sampled_from(["softmax", "NONE", None]) | json_values,
    },
)
documents = st.fixed_dictionaries(
    {"inputs": base64_texts | st.lists(base64_texts, max_size=3) | json_values},
    optional={"parameters": parameters | json_values, "options": json_values},
).map(lambda document: json.dumps(document).encode())
forms = pictures.map(
    lambda data: (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        + data
        + b"\r\n--b--"
    )
)
bodies = pictures | documents | forms | base64_texts.map(str.encode) | st.binary(max_size=300)

values = st.sampled_from(["true", "0", "1", "", "no"]) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), max_size=20
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(
            ["image/jpeg", "application/json", "multipart/form-data; boundary=b", "text/plain"]
        )
        | values,
        "authorization": values.map(lambda value: f"Bearer {value}".strip()) | values,
        "x-use-cache": values,
        "x-wait-for-model": values,
        "x-load-model": values,
        "x-scale-up-timeout": values,
        "x-request-id": values,
        "accept": values,
        "accept-encoding": values,
    },
)
queries = st.dictionaries(
    st.sampled_from(["top_k", "function_to_apply", "other"]), st.text(max_size=9), max_size=2
)
paths = st.sampled_from(
    ["/models/test/vit", "/", "/hf-inference/models/test/vit/", "/models/nobody/nothing"]
)


@given(bodies, headers, queries, paths)
@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
def test_any_request_gets_an_answer_or_a_4xx(
    client: httpx.Client, body: bytes, headers: dict[str, str], query: dict[str, str], path: str
) -> None:
    """Any request is answered 200 with a list, or 400 or 404 with an error in JSON."""
    answer = client.post(path, content=body, headers=headers, params=query)

    assert answer.status_code in {200, 400, 404}, answer.text
    assert answer.headers["content-type"] == "application/json"
    if answer.status_code == 200:
        assert isinstance(answer.json(), list)
    else:
        assert isinstance(answer.json()["error"], str)
