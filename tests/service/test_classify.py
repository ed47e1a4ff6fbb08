"""Answers over HTTP from a real Triton equal those of `transformers.pipeline`."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pictures import PICTURES, photo
from tests.reference import ALL_LABELS, expected
from tests.stack import HELD_OUT, ROOT, Stack, triton_counts

SCORE_TOLERANCE = 1e-5


def assert_same(actual: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert [p["label"] for p in actual] == [p["label"] for p in wanted]
    assert [p["score"] for p in actual] == pytest.approx(
        [p["score"] for p in wanted], abs=SCORE_TOLERANCE, rel=0
    )


def test_demo_classifies_a_digit(client: httpx.Client) -> None:
    """The first `curl` of the README, in Python: the best label of the digit 7 is "7"."""
    image = (ROOT / "demo" / "digits" / "7.png").read_bytes()

    response = client.post("/models/vitriton/vit-digits", content=image)

    assert response.status_code == 200
    assert response.json()[0]["label"] == "7"


@pytest.mark.pixels
@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES.keys())
@pytest.mark.parametrize("model_id", ["test/vit", "test/deit-distilled"])
def test_scores_equal_transformers_pipeline(
    client: httpx.Client, checkpoints: dict[str, Path], model_id: str, picture: bytes
) -> None:
    """Every label's score is within 1e-5 of the pipeline's, in the same order."""
    response = client.post(f"/models/{model_id}", params={"top_k": ALL_LABELS}, content=picture)

    assert response.status_code == 200
    wanted = expected(checkpoints[model_id], picture, top_k=ALL_LABELS)
    assert_same(response.json(), wanted)


def test_random_checkpoints_give_different_scores(client: httpx.Client) -> None:
    """Different pictures have different best scores; else the comparison would prove little."""
    best = {
        json.dumps(client.post("/models/test/vit", content=picture).json()[0])
        for picture in PICTURES.values()
    }

    assert len(best) > len(PICTURES) // 2


@pytest.mark.pixels
@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none", "SIGMOID", None])
@pytest.mark.parametrize("top_k", [1, 3, None])
def test_json_parameters_equal_the_pipelines(
    client: httpx.Client, checkpoints: dict[str, Path], function: str | None, top_k: int | None
) -> None:
    """`function_to_apply` and `top_k` mean what they mean in transformers."""
    parameters = {"function_to_apply": function, "top_k": top_k}
    inputs = base64.b64encode(photo("china")).decode()

    response = client.post("/models/test/vit", json={"inputs": inputs, "parameters": parameters})

    given: dict[str, Any] = {n: value for n, value in parameters.items() if value is not None}
    assert_same(response.json(), expected(checkpoints["test/vit"], photo("china"), **given))


def test_default_is_the_five_best(client: httpx.Client) -> None:
    """Without parameters the answer has five labels, the best first."""
    answer = client.post("/models/test/vit", content=photo("flower")).json()

    scores = [prediction["score"] for prediction in answer]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1.00001


def test_raw_and_every_base64_form_give_one_answer(client: httpx.Client) -> None:
    """Raw bytes and base64 in any form have one answer, and share one entry of the cache."""
    picture = photo("china")
    plain = base64.b64encode(picture).decode()
    forms: list[bytes] = [
        picture,
        json.dumps({"inputs": plain}).encode(),
        json.dumps({"inputs": f"data:image/jpeg;base64,{plain}"}).encode(),
        json.dumps({"inputs": base64.encodebytes(picture).decode()}).encode(),
        json.dumps({"inputs": base64.urlsafe_b64encode(picture).decode().rstrip("=")}).encode(),
        b"\xef\xbb\xbf  " + json.dumps({"inputs": plain, "parameters": None}).encode(),
        plain.encode(),
    ]
    types = [None, "image/jpeg", "application/json; charset=utf-8", "text/plain"]

    answers = [
        client.post(
            "/models/test/vit", content=form, headers={"content-type": kind} if kind else {}
        )
        for form in forms
        for kind in types
    ]

    assert {answer.headers["x-compute-type"] for answer in answers[1:]} == {"cache"}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].content.startswith(b'[{"label":"')


def test_query_parameters_apply_to_raw_bytes(client: httpx.Client) -> None:
    """A raw image takes `top_k` and `function_to_apply` from the URL."""
    answer = client.post(
        "/models/test/vit",
        params={"top_k": "2", "function_to_apply": "none"},
        content=photo("china"),
    ).json()

    assert len(answer) == 2
    assert answer[0]["score"] > 1


def test_body_parameters_win_over_the_query(client: httpx.Client) -> None:
    """An object `parameters` in the body, even an empty one, replaces those of the URL."""
    body = {"inputs": base64.b64encode(photo("china")).decode(), "parameters": {}}

    answer = client.post("/models/test/vit", params={"top_k": "2"}, json=body).json()

    assert len(answer) == 5


def test_demo_classifies_held_out_digits(client: httpx.Client) -> None:
    """The demo model is right on at least 97 % of the digits that it was not trained on."""
    pictures = sorted(HELD_OUT.glob("*.png"))

    def is_right(path: Path) -> bool:
        answer = client.post("/models/vitriton/vit-digits", content=path.read_bytes()).json()
        return path.stem.endswith(f"-{answer[0]['label']}")

    with ThreadPoolExecutor(8) as pool:
        right = sum(pool.map(is_right, pictures))

    assert len(pictures) == 599
    assert right / len(pictures) >= 0.97


def test_concurrent_requests_share_executions(client: httpx.Client, stack: Stack) -> None:
    """Triton runs fewer executions than inferences when requests are concurrent."""
    inferences_before, executions_before = triton_counts(stack, "test--vit")
    requests = 96

    with ThreadPoolExecutor(32) as pool:
        codes = list(
            pool.map(
                lambda _: (
                    client.post(
                        "/models/test/vit",
                        content=PICTURES["bmp"],
                        headers={"x-use-cache": "false"},
                    ).status_code
                ),
                range(requests),
            )
        )

    inferences, executions = triton_counts(stack, "test--vit")
    assert codes == [200] * requests
    assert inferences - inferences_before == requests
    assert executions - executions_before < requests
