"""A live service and its descriptions agree with the table of endpoints and headers."""

import re

import httpx
import pytest

from gateway.http.parameters import OPTION_HEADERS
from gateway.http.table import ENDPOINTS, REQUEST_HEADERS, RESPONSE_HEADERS, Endpoint
from tests.pictures import encode, gradient
from tests.stack import ROOT

MODEL_ID = "test/vit"
VALUES = {
    "model_id": MODEL_ID,
    "task": "image-classification",
    "framework": "transformers",
    "asset": "start.js",
}
# HTTP's own.
ORDINARY_HEADERS = {"content-length", "content-type", "date", "server"}


def url_of(endpoint: Endpoint) -> str:
    return endpoint.path.format(**VALUES)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_endpoint_answers_as_the_table_says(client: httpx.Client, endpoint: Endpoint) -> None:
    """Each endpoint is 200 with the kind of JSON that the table names."""
    picture = encode(gradient(40, 40), "PNG") if endpoint.method == "POST" else None

    answer = client.request(endpoint.method, url_of(endpoint), content=picture)

    assert answer.status_code == 200
    if endpoint.answer == "other":
        assert not answer.headers["content-type"].startswith("application/json")
    else:
        kind = dict if endpoint.answer == "object" else list
        assert isinstance(answer.json(), kind)


def test_description_has_every_endpoint_with_json(client: httpx.Client) -> None:
    """OpenAPI has exactly the table's JSON endpoints, without those under the prefix."""
    described = {
        (method.upper(), path)
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method in methods
        if not path.startswith("/hf-inference/")
    }

    assert described == {(e.method, e.path) for e in ENDPOINTS if e.answer != "other"}


def sent_headers(answer: httpx.Response) -> set[str]:
    return {name.lower() for name in answer.headers} - ORDINARY_HEADERS


def test_classification_has_the_headers_of_the_table(client: httpx.Client) -> None:
    """An answer, OpenAPI, CORS and docs/api.md have exactly the headers of the table."""
    picture = encode(gradient(41, 40), "PNG")
    answer = client.post(f"/models/{MODEL_ID}", content=picture)
    in_a_browser = client.post(
        f"/models/{MODEL_ID}", content=picture, headers={"origin": "https://example.org"}
    )
    of_classification = {h.name for h in RESPONSE_HEADERS if h.where != "error"}
    operation = client.get("/openapi.json").json()["paths"]["/models/{model_id}"]["post"]

    assert sent_headers(answer) == of_classification
    assert set(operation["responses"]["200"]["headers"]) == of_classification
    exposed = re.split(r",\s*", in_a_browser.headers["access-control-expose-headers"])
    assert set(exposed) == {h.name for h in RESPONSE_HEADERS}
    page = (ROOT / "docs" / "api.md").read_text()
    assert [h.name for h in RESPONSE_HEADERS if f"| `{h.name}` | " not in page] == []


def test_errors_have_headers_of_the_table(client: httpx.Client) -> None:
    """No error has a header that the table lacks."""
    known = {h.name for h in RESPONSE_HEADERS}
    cold = {"x-load-model": "0"}
    answers = [
        client.post(f"/models/{MODEL_ID}", content=b"no image"),
        client.post("/models/test/cold", content=b"no image", headers=cold),
        client.get("/nothing/here"),
        client.put("/info"),
    ]

    assert [answer.status_code for answer in answers] == [400, 503, 404, 405]
    assert set().union(*map(sent_headers, answers)) - {"allow"} <= known


def test_request_headers_are_described_and_read(client: httpx.Client) -> None:
    """OpenAPI and the parser have the request headers of the table."""
    operation = client.get("/openapi.json").json()["paths"]["/models/{model_id}"]["post"]
    described = {p["name"] for p in operation["parameters"] if p["in"] == "header"}
    names = {header.name for header in REQUEST_HEADERS}

    assert described == names - {"authorization", "content-encoding"}
    assert names > OPTION_HEADERS.keys()
    options = {h.name: h.option for h in REQUEST_HEADERS if h.option}
    assert options.items() <= dict(OPTION_HEADERS).items()
