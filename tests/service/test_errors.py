"""Bad input is a 4xx with a string `error` in JSON, and the next request works."""

import base64
import json
import socket

import httpx
import pytest

from tests.pictures import PICTURES, encode, gradient, photo

GOOD = base64.b64encode(PICTURES["png smaller"]).decode()
MODEL = "/models/test/vit"


def with_parameters(parameters: object) -> bytes:
    return json.dumps({"inputs": GOOD, "parameters": parameters}).encode()


BAD_BODIES = {
    "empty body": (b"", "empty"),
    "text file": (b"Dear server,\nthis is a letter.\n", "cannot identify image file"),
    "zeros": (bytes(1000), "cannot identify image file"),
    "half a PNG": (PICTURES["png larger"][: len(PICTURES["png larger"]) // 2], "truncated"),
    "half a JPEG": (photo("china")[:5000], "truncated"),
    "a PNG's first bytes": (b"\x89PNG\r\n\x1a\n", "cannot identify"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the image is SVG"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC/HEIF, which this server does not"),
    "JSON string": (json.dumps(GOOD).encode(), "JSON string"),
    "JSON list": (json.dumps([GOOD]).encode(), "JSON list"),
    "JSON in UTF-16": (json.dumps({"inputs": GOOD}).encode("utf-16"), "UTF-16"),
    "form-encoded": (f"inputs={GOOD}".encode(), "form-encoded"),
    "name of a file": (b"cat.jpg", "--data-binary @FILE"),
    "base64 rubbish": (b'{"inputs": "!!!not base64!!!"}', "base64"),
    "base64 of text": (json.dumps({"inputs": GOOD[:3]}).encode(), "cannot identify"),
    "a URL": (b'{"inputs": "https://example.org/cat.jpg"}', "URL"),
    "no inputs": (b'{"x": 1}', "inputs"),
    "inputs is a number": (b'{"inputs": 5}', "`inputs`"),
    "half of JSON": (b'{"inputs": "abc', "JSON"),
    "JSON that is not UTF-8": (b'{"inputs": "\xff"}', "JSON"),
    "top_k is text": (with_parameters({"top_k": "3"}), "top_k"),
    "top_k is a fraction": (with_parameters({"top_k": 2.5}), "top_k"),
    "top_k is zero": (with_parameters({"top_k": 0}), "top_k"),
    "top_k is true": (with_parameters({"top_k": True}), "top_k"),
    "unknown function": (with_parameters({"function_to_apply": "relu"}), "ClassificationFunction"),
    "unknown parameter": (with_parameters({"threshold": 1}), "threshold"),
    "parameters is a list": (with_parameters([1]), "parameters"),
}


# The hosted API's text, and what to do.
UNKNOWN_MODEL = "Model nobody/nothing does not exist; GET /info lists the loaded models"


def assert_error(response: httpx.Response, status: int) -> str:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content) < 1000
    assert response.headers["x-request-id"]
    body = response.json()
    assert isinstance(body, dict)
    assert isinstance(body["error"], str)
    return str(body["error"])


@pytest.mark.parametrize(("body", "message"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_bad_body_is_a_clear_400(client: httpx.Client, body: bytes, message: str) -> None:
    """A bad body is 400 with a message that names the fault, and the next request works."""
    error = assert_error(client.post(MODEL, content=body), 400)

    assert message in error
    assert client.post(MODEL, content=PICTURES["png smaller"]).status_code == 200


@pytest.mark.parametrize("picture", [PICTURES["png larger"], photo("china")], ids=["PNG", "JPEG"])
def test_file_that_curl_sent_as_text_gets_a_hint(client: httpx.Client, picture: bytes) -> None:
    """An image that `curl -d` stripped of line breaks and zeros is 400 with the right option."""
    sent = picture.translate(None, b"\r\n\0")
    headers = {"content-type": "application/x-www-form-urlencoded"}

    answer = client.post(MODEL, content=sent, headers=headers)

    assert "--data-binary @FILE" in assert_error(answer, 400)
    assert client.post(MODEL, content=picture, headers=headers).status_code == 200
    # A file that `--data-binary` sent, and JSON that `-d` sent, get no hint.
    for body in (picture[: len(picture) // 2], b'{"inputs": "AAAA"}'):
        assert "curl" not in assert_error(client.post(MODEL, content=body, headers=headers), 400)


def test_query_with_a_non_integer_top_k_is_400(client: httpx.Client) -> None:
    """`?top_k=many` is 400 with an error about `top_k`."""
    response = client.post(MODEL, params={"top_k": "many"}, content=photo("china"))

    assert "top_k" in assert_error(response, 400)


@pytest.mark.parametrize(
    "model_id",
    ["nobody/nothing", "vit", "TEST/vit", "test--vit", "a/b/c", "%00", "x" * 200],
)
def test_unknown_model_is_404(client: httpx.Client, model_id: str) -> None:
    """An id that does not match a model exactly is 404 with the hosted API's text."""
    response = client.post(f"/models/{model_id}", content=photo("china"))

    assert assert_error(response, 404).startswith("Model ")


def raw_request(client: httpx.Client, request: bytes, *, closes: bool = False) -> bytes:
    """What the server sends for these bytes, which a client library would change."""
    url = client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=30) as sock:
        sock.sendall(request)
        if closes:
            sock.shutdown(socket.SHUT_WR)
        return sock.makefile("rb").read()


@pytest.mark.parametrize("path", ["../x", "..%2Fx", "../../etc/passwd", ".", "test/../vit"])
def test_path_with_dots_is_an_unknown_model(client: httpx.Client, path: str) -> None:
    """A model id with `..` is 404, and names nothing outside the repository."""
    head = f"POST /models/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1"

    answer = raw_request(client, head.encode() + b"\r\n\r\nx")

    assert answer.startswith(b"HTTP/1.1 404")
    assert b'"error":"Model ' in answer


def test_client_that_leaves_is_not_counted_as_a_500(client: httpx.Client) -> None:
    """A client that leaves after half a body is counted as such and not as a 500."""
    before = client.get("/metrics").text.count('code="500"')

    head = f"POST {MODEL} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    raw_request(client, head.encode() + b"x", closes=True)

    metrics = client.get("/metrics").text
    assert 'gateway_errors_total{error_type="client_closed_request"}' in metrics
    assert metrics.count('code="500"') == before
    assert client.post(MODEL, content=PICTURES["png smaller"]).status_code == 200


def test_unknown_model_has_the_hosted_apis_text_and_names_info(client: httpx.Client) -> None:
    """The 404 begins with the hosted API's words and names `/info`, which lists the models."""
    response = client.post("/models/nobody/nothing", content=photo("china"))

    assert assert_error(response, 404) == UNKNOWN_MODEL
    assert client.get("/info").json()["models"] != []


def test_body_over_the_limit_is_413(client: httpx.Client) -> None:
    """A body over the limit is 413 with the setting's name, and the client can read it."""
    error = assert_error(client.post(MODEL, content=bytes(15 * 1024 * 1024)), 413)

    assert "GATEWAY_MAX_BODY_BYTES" in error


def test_image_over_the_pixel_limit_is_refused_from_its_header(client: httpx.Client) -> None:
    """A small file with 100 million pixels is 400 and is not decoded."""
    bomb = encode(gradient(1, 1).resize((10_000, 10_000)), "PNG")

    error = assert_error(client.post(MODEL, content=bomb), 400)

    assert "GATEWAY_MAX_IMAGE_PIXELS" in error


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nope", 404), ("PUT", MODEL, 405)])
def test_unknown_path_and_wrong_method_are_json(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    """An unknown path is 404 and a wrong method 405, both with an error in JSON."""
    assert_error(client.request(method, path), status)


@pytest.mark.parametrize("path", ["/models/a%0Ab", "/models/test/vit%0A", "/models//pipeline/x"])
def test_any_characters_are_a_model_id(client: httpx.Client, path: str) -> None:
    """A path that names no model of the repository is 404 for that model, with line breaks too."""
    answer = client.post(path, content=PICTURES["png smaller"])

    assert_error(answer, 404)
    assert answer.json()["error_type"] == "model_not_found"
