"""The gateway serves every URL, header and form of body that clients of the hosted API use."""

import base64
import gzip
import json
import re
import socket
import zlib
from typing import Any

import brotli
import httpx
import pytest
from backports import zstd

from tests.pictures import PICTURES, encode, gradient, photo, rotated
from tests.service.test_errors import UNKNOWN_MODEL, assert_error
from tests.stack import WAIT_TIMEOUT_S, Stack, triton_counts, wait_until

PICTURE = PICTURES["png smaller"]
DEMO = "vitriton/vit-digits"
NO_CACHE = {"x-use-cache": "false"}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("path", "model_id"),
    [
        ("/models/test/vit", "test/vit"),
        ("/hf-inference/models/test/vit", "test/vit"),
        ("/pipeline/image-classification/test/vit", "test/vit"),
        ("/models/test/vit/pipeline/image-classification", "test/vit"),
        ("/hf-inference/models/test/vit/pipeline/image-classification", "test/vit"),
        ("/", DEMO),
        ("/predict", DEMO),
        ("/invocations", DEMO),
        ("/pipeline/image-classification", DEMO),
    ],
)
def test_path_classifies(client: httpx.Client, path: str, model_id: str, slash: str) -> None:
    """A POST to each path, with or without a slash at the end, classifies without a redirect."""
    answer = client.post(path.rstrip("/") + slash or "/", content=PICTURE)

    assert answer.status_code == 200
    assert answer.content == client.post(f"/models/{model_id}", content=PICTURE).content


@pytest.mark.parametrize(
    "path", ["/pipeline/text-generation/test/vit", "/models/test/vit/pipeline/nothing"]
)
def test_another_task_is_400(client: httpx.Client, path: str) -> None:
    """A path with a task other than image-classification is 400 with the hosted API's words."""
    assert "is not recognized" in assert_error(client.post(path, content=PICTURE), 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/models/nobody/nothing"),
        ("POST", "/hf-inference/models/nobody/nothing/"),
        ("POST", "/pipeline/image-classification/nobody/nothing"),
        ("GET", "/models/nobody/nothing"),
        ("GET", "/models/nobody/nothing/info"),
        ("GET", "/models/nobody/nothing/health"),
        ("GET", "/status/nobody/nothing"),
        ("GET", "/api/models/nobody/nothing?expand=inferenceProviderMapping"),
    ],
)
def test_unknown_model_has_one_text_everywhere(
    client: httpx.Client, method: str, path: str
) -> None:
    """Every path with an unknown model is 404 with the hosted API's text."""
    answer = client.request(method, path, content=PICTURE if method == "POST" else None)

    assert assert_error(answer, 404) == UNKNOWN_MODEL


def test_discovery_routes_satisfy_their_clients(client: httpx.Client) -> None:
    """Answers have the keys that huggingface_hub and @huggingface/inference read."""
    assert client.get("/").json() == {"ok": "ok"}
    assert client.get("/models/test/vit/health").status_code == 200
    assert client.get("/models/test/vit/info").json() == client.get("/models/test/vit").json()
    assert client.get("/models/test/vit/info").json()["model_id"] == "test/vit"
    status = client.get("/status/test/vit").json()
    assert status == {
        "state": "Loaded",
        "loaded": True,
        "compute_type": {"cpu": {"count": 1}},
        "framework": "transformers",
    }
    deployed = client.get("/framework/transformers").json()
    assert {"model_id": "test/vit", "task": "image-classification"} in deployed
    assert client.get("/framework/diffusers").json() == []
    for query in ("expand=inferenceProviderMapping", "expand%5B%5D=inferenceProviderMapping"):
        model = client.get(f"/api/models/test/vit?{query}").json()
        assert model["id"] == "test/vit"
        assert model["inferenceProviderMapping"][0]["status"] == "live"
    assert_error(client.get("/api/tasks"), 404)


def test_response_headers_have_the_hosted_apis_units(client: httpx.Client) -> None:
    """`x-compute-time` is seconds with three decimals; other times are whole milliseconds."""
    headers = client.post("/models/test/vit", content=PICTURE, headers=NO_CACHE).headers

    assert headers["content-type"] == "application/json"
    assert headers["x-compute-type"] == "cpu"
    assert re.fullmatch(r"\d+\.\d{3}", headers["x-compute-time"])
    times = [headers[f"x-{name}-time"] for name in ("queue", "inference", "total")]
    assert all(re.fullmatch(r"\d+", time) for time in times)
    assert int(headers["x-total-time"]) >= int(headers["x-inference-time"])
    assert headers["x-compute-images"] == "1"
    assert re.fullmatch(r"[0-9a-f]{40}", headers["x-sha"])
    assert re.fullmatch(r"[0-9a-f]{32}", headers["x-inference-id"])


@pytest.mark.parametrize("path", ["/models/test/vit", "/", "/models/nobody/nothing"])
def test_browser_may_call_from_any_origin(client: httpx.Client, path: str) -> None:
    """A page of any origin may send all headers, and may read answers and errors."""
    origin = {"origin": "https://example.org"}
    wanted = "authorization, content-type, x-use-cache, x-wait-for-model, x-load-model"
    asked = {"access-control-request-method": "POST", "access-control-request-headers": wanted}
    preflight = client.options(path, headers=origin | asked)
    answer = client.post(path, content=PICTURE, headers=origin)

    assert preflight.status_code == 200
    assert set(wanted.split(", ")) <= set(
        preflight.headers["access-control-allow-headers"].lower().split(", ")
    )
    assert preflight.headers["access-control-allow-origin"] in {"*", "https://example.org"}
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-origin"] == "*"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-compute-type", "x-compute-time", "x-request-id"} <= set(exposed)


@pytest.mark.parametrize("path", ["/models/test/vit", "/health", "/nowhere"])
@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"access-control-request-private-network": "true"}, 200),
        ({"access-control-request-method": "BREW"}, 400),
    ],
)
def test_preflight_is_answered_in_json(
    client: httpx.Client, path: str, asked: dict[str, str], status: int
) -> None:
    """A preflight has an answer in JSON, and may ask to call into a private network."""
    preflight = {"origin": "https://example.org", "access-control-request-method": "POST"}
    answer = client.options(path, headers=preflight | asked)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    if status == 200:
        assert answer.headers["access-control-allow-private-network"] == "true"
    else:
        assert_error(answer, 400)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/models", {"GET": 200, "POST": 405}),
        ("/hf-inference/models", {"GET": 200, "POST": 405}),
        ("/api/models", {"GET": 200, "POST": 405}),
        ("/status", {"GET": 404, "POST": 404}),
        ("/framework", {"GET": 404, "POST": 404}),
        ("/docs/nothing", {"GET": 404, "POST": 405}),
    ],
)
def test_path_without_a_model_does_not_redirect(
    client: httpx.Client, path: str, statuses: dict[str, int], slash: str
) -> None:
    """A path that lacks the model id lists models or is an error in JSON, never a redirect."""
    for method, status in statuses.items():
        answer = client.request(method, path + slash, content=PICTURE if method == "POST" else None)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        if status != 200:
            assert_error(answer, status)


def test_lists_of_models_have_the_loaded_models(client: httpx.Client) -> None:
    """`/models` and `/api/models` list the same loaded models as `/info`."""
    facts = client.get("/info").json()["models"]
    ids = [model["model_id"] for model in facts]

    assert client.get("/models").json() == facts
    listed = client.get("/api/models?search=vit&limit=5").json()
    assert [model["id"] for model in listed] == ids
    assert listed[0] == client.get(f"/api/models/{ids[0]}").json()


def test_list_of_inputs_gives_a_list_of_answers(client: httpx.Client) -> None:
    """A list of images has an answer for each in order, also a list of one or none."""
    pictures = [PICTURES["bmp"], PICTURES["gif"], PICTURES["bmp"]]
    inputs = [base64.b64encode(picture).decode() for picture in pictures]
    single = [client.post("/models/test/vit", content=picture).json() for picture in pictures]

    assert client.post("/models/test/vit", json={"inputs": inputs}).json() == single
    assert client.post("/models/test/vit", json={"inputs": inputs[:1]}).json() == single[:1]
    assert client.post("/models/test/vit", json={"inputs": []}).json() == []
    bad = client.post("/models/test/vit", json={"inputs": [inputs[0], "AAAA"]})
    assert "cannot identify image file" in assert_error(bad, 400)
    many = client.post("/models/test/vit", json={"inputs": inputs * 11})
    assert "GATEWAY_MAX_INPUTS" in assert_error(many, 400)


@pytest.mark.parametrize(
    ("file", "data"),
    [
        (("cat.png", PICTURE), {"top_k": "2"}),
        ((None, PICTURE), {"top_k": "2"}),
        ((None, PICTURE, "image/png"), {"parameters": '{"top_k": 2}', "top_k": ""}),
        ((None, base64.b64encode(PICTURE)), {"parameters": '{"top_k": 2.0}', "options": "{}"}),
    ],
)
@pytest.mark.parametrize("name", ["image", "file"])
def test_form_is_classified(
    client: httpx.Client, name: str, file: tuple[Any, ...], data: dict[str, str]
) -> None:
    """A form with an image in any way has the answer of the raw image with its parameters."""
    raw = client.post("/models/test/vit", content=PICTURE, params={"top_k": 2})
    form = client.post("/models/test/vit", files={name: file}, data=data)

    assert form.status_code == 200
    assert form.content == raw.content


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_encoded_body_is_decoded(client: httpx.Client, coding: str) -> None:
    """A compressed image or JSON document has the answer of the plain image."""
    encode = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": brotli.compress,
        "zstd": zstd.compress,
    }[coding]
    headers = {"content-encoding": coding}
    plain = client.post("/models/test/vit", content=PICTURE)
    document = json.dumps({"inputs": base64.b64encode(PICTURE).decode()}).encode()

    for body in (PICTURE, document):
        answer = client.post("/models/test/vit", content=encode(body), headers=headers)
        assert answer.content == plain.content


def test_unusable_encoded_body_is_refused(client: httpx.Client) -> None:
    """An encoded body is 413 over the limit, 400 if damaged, and 415 in an unknown coding."""

    def error(coding: str, body: bytes, status: int) -> httpx.Response:
        answer = client.post("/models/test/vit", content=body, headers={"content-encoding": coding})
        assert_error(answer, status)
        return answer

    bomb = gzip.compress(bytes(100_000_000))
    assert "GATEWAY_MAX_BODY_BYTES" in error("gzip", bomb, 413).text
    error("gzip", PICTURE, 400)
    assert error("compress", PICTURE, 415).headers["accept-encoding"] == "gzip, deflate, br, zstd"


@pytest.mark.pixels
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_gives_the_upright_answer(client: httpx.Client, orientation: int) -> None:
    """A picture stored with any EXIF orientation has the answer of the upright picture."""
    turned = rotated(orientation, "PNG")
    upright = encode(gradient(120, 60), "PNG")

    answers = [
        client.post("/models/test/vit", content=picture, headers=NO_CACHE).json()
        for picture in (turned, upright)
    ]

    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("fmt", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("GIF", {}, 0.2),
        ("JPEG", {"quality": 95, "subsampling": 0}, 0.2),
    ],
)
def test_six_formats_give_one_answer(
    client: httpx.Client, fmt: str, options: dict[str, Any], tolerance: float
) -> None:
    """Lossless formats have equal logits, and GIF and JPEG close ones."""
    ask: dict[str, Any] = {"function_to_apply": "none", "top_k": 100}
    picture = gradient(150, 100)
    upright = encode(picture.quantize(256).convert("RGB") if fmt == "GIF" else picture, "PNG")
    written = encode(picture.quantize(256) if fmt == "GIF" else picture, fmt, **options)

    answers = [
        {
            (i, p["label"]): p["score"]
            for i, p in enumerate(
                sorted(
                    client.post("/models/vitriton/vit-digits", content=data, params=ask).json(),
                    key=lambda p: str(p["label"]),
                )
            )
        }
        for data in (written, upright)
    ]

    assert answers[0] == pytest.approx(answers[1], abs=tolerance, rel=tolerance)


def test_client_that_leaves_during_a_load_is_499(client: httpx.Client, stack: Stack) -> None:
    """A client that leaves while its model is loaded is counted as 499 and infers nothing."""
    url = client.base_url
    picture = photo("china")
    before, _ = triton_counts(stack, "test--vit")
    head = (
        "POST /models/test/cold HTTP/1.1\r\nHost: x\r\n"
        f"Content-Length: {len(picture)}\r\nx-use-cache: false\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port or 80), timeout=WAIT_TIMEOUT_S) as sock:
        sock.sendall(head.encode() + picture)
        wait_until(lambda: "gateway_inflight_requests 2.0" in client.get("/metrics").text)
    wait_until(lambda: "gateway_inflight_requests 1.0" in client.get("/metrics").text)

    assert 'code="499"' in client.get("/metrics").text
    assert triton_counts(stack, "test--vit")[0] == before
