"""The cache answers repeated images, as Triton's own count of inferences shows."""

import base64
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import tritonclient.grpc

from exporter.config_pbtxt import ServingOptions
from exporter.export import ExportRequest, export_model
from tests.checkpoints import save_vit
from tests.gateways import gateway
from tests.pictures import encode, gradient
from tests.stack import Stack, triton_counts, wait_until

MODEL = "/models/test/vit"


def new_picture(width: int) -> bytes:
    """A picture that no other test sends."""
    return encode(gradient(width, 11), "PNG")


@pytest.fixture
def inferences(stack: Stack) -> Callable[[], int]:
    """Inferences of `test/vit` since the test began."""
    before, _ = triton_counts(stack, "test--vit")
    return lambda: triton_counts(stack, "test--vit")[0] - before


def test_second_identical_request_is_a_hit(
    client: httpx.Client, inferences: Callable[[], int]
) -> None:
    """The second request with the same bytes has the same answer, without an inference."""
    picture = new_picture(101)

    first, second = (client.post(MODEL, content=picture) for _ in range(2))

    assert first.headers["x-compute-type"] == "cpu"
    assert second.headers["x-compute-type"] == "cache"
    assert first.content == second.content
    assert first.headers["x-sha"] == second.headers["x-sha"]
    assert inferences() == 1


def test_every_form_and_parameter_of_an_image_shares_its_entry(
    client: httpx.Client, inferences: Callable[[], int]
) -> None:
    """The cache keeps logits by the SHA-256 of the decoded body, so all these requests hit."""
    picture = new_picture(102)
    inputs = base64.b64encode(picture).decode()
    first = client.post(MODEL, content=picture, params={"function_to_apply": "none"})
    others = [
        client.post(MODEL, json={"inputs": inputs}),
        client.post(MODEL, json={"inputs": f"data:image/png;base64,{inputs}"}),
        client.post(MODEL, files={"file": ("x.png", picture)}),
        client.post(MODEL, content=picture, params={"top_k": 1}),
        client.post(MODEL, content=picture, params={"function_to_apply": "sigmoid"}),
        client.post(MODEL, json={"inputs": [inputs, inputs]}),
    ]

    assert first.headers["x-compute-type"] == "cpu"
    assert [other.headers["x-compute-type"] for other in others] == ["cache"] * len(others)
    assert len(others[3].json()) == 1
    assert inferences() == 1


@pytest.mark.parametrize("value", ["false", "0", "No"])
def test_header_bypasses_the_cache(
    client: httpx.Client, inferences: Callable[[], int], value: str
) -> None:
    """With `x-use-cache: false` nothing is read from the cache and nothing is written to it."""
    picture = new_picture(103)
    headers = {"x-use-cache": value}

    answers = [client.post(MODEL, content=picture, headers=headers) for _ in range(2)]

    assert [answer.headers["x-compute-type"] for answer in answers] == ["cpu", "cpu"]
    assert inferences() == 2


def test_option_bypasses_the_cache_and_the_header_wins(
    client: httpx.Client, inferences: Callable[[], int]
) -> None:
    """`options.use_cache` in the body bypasses the cache unless `x-use-cache` says otherwise."""
    body = {
        "inputs": base64.b64encode(new_picture(104)).decode(),
        "options": {"use_cache": False},
    }
    kinds = [
        client.post(MODEL, json=body, headers=headers).headers["x-compute-type"]
        for headers in ({}, {}, {"x-use-cache": "true"}, {"x-use-cache": "true"})
    ]

    assert kinds == ["cpu", "cpu", "cpu", "cache"]
    assert inferences() == 3


def test_identical_requests_at_once_cost_one_inference(
    client: httpx.Client, inferences: Callable[[], int]
) -> None:
    """200 simultaneous requests with one image have one answer from one inference."""
    picture = new_picture(105)
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda _: client.post(MODEL, content=picture), range(200)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert inferences() == 1


def test_errors_are_not_kept(stack: Stack, client: httpx.Client) -> None:
    """Logits that are not finite are 500 and no NaN in JSON, and each request is inferred."""
    picture = new_picture(106)
    client.post("/models/test/nan", content=new_picture(109))
    before, _ = triton_counts(stack, "test--nan")

    answers = [client.post("/models/test/nan", content=picture) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert all("not a finite number" in json.loads(answer.content)["error"] for answer in answers)
    assert triton_counts(stack, "test--nan")[0] - before == 2


def test_cache_can_be_turned_off(stack: Stack, inferences: Callable[[], int]) -> None:
    """With `GATEWAY_CACHE_BYTES=0`, a repeated image is inferred again."""
    with gateway(stack.triton_grpc_url, GATEWAY_CACHE_BYTES="0") as client:
        kinds = [
            client.post(MODEL, content=new_picture(107)).headers["x-compute-type"] for _ in range(2)
        ]

    assert kinds == ["cpu", "cpu"]
    assert inferences() == 2


@pytest.mark.pixels
def test_new_version_of_a_model_misses(
    stack: Stack, repository: Path, client: httpx.Client, tmp_path: Path
) -> None:
    """After Triton has loaded a new version, cached answers of the old one are not used."""
    entry = repository / "test--changing"
    picture = new_picture(108)
    options = ServingOptions(max_batch_size=1)

    def export(**config: float) -> None:
        checkpoint = save_vit(tmp_path / "checkpoint", **config)
        export_model(ExportRequest(str(checkpoint), repository, "test/changing", options=options))

    try:
        export()
        first = client.post("/models/test/changing", content=picture)
        export(initializer_range=0.2)
        with tritonclient.grpc.InferenceServerClient(stack.triton_grpc_url) as triton:
            triton.load_model("test--changing")

            def is_new() -> bool:
                answer = client.post("/models/test/changing", content=picture)
                return answer.headers["x-sha"] != first.headers["x-sha"]

            wait_until(is_new)
            second = client.post(
                "/models/test/changing", content=picture, headers={"x-use-cache": "false"}
            )
            again = client.post("/models/test/changing", content=picture)
            triton.unload_model("test--changing")
    finally:
        shutil.rmtree(entry)

    assert first.json() != second.json()
    assert again.content == second.content
