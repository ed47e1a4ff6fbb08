"""A model that is in the repository but not loaded is loaded on demand by a real Triton."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import httpx
import pytest
import tritonclient.grpc

from tests.gateways import RunningGateway, gateway
from tests.pictures import PICTURES
from tests.service.test_errors import UNKNOWN_MODEL, assert_error
from tests.stack import Stack, wait_until

COLD = "/models/test/cold"
PICTURE = PICTURES["png smaller"]
WAIT = {"x-wait-for-model": "true"}


def is_loaded(triton: tritonclient.grpc.InferenceServerClient) -> bool:
    index = triton.get_model_repository_index()
    return any(m.name == "test--cold" and m.state == "READY" for m in index.models)


@pytest.fixture
def triton(stack: Stack) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    """A client of Triton, which has unloaded `test/cold`."""
    with tritonclient.grpc.InferenceServerClient(stack.triton_grpc_url) as client:
        unload(client)
        yield client


def unload(triton: tritonclient.grpc.InferenceServerClient) -> None:
    triton.unload_model("test--cold")
    wait_until(lambda: not is_loaded(triton))


@pytest.fixture
def impatient(
    stack: Stack, triton: tritonclient.grpc.InferenceServerClient
) -> Iterator[RunningGateway]:
    """A gateway that holds a request for a cold model for one second, the least there is."""
    with gateway(stack.triton_grpc_url, GATEWAY_COLD_START_WAIT_S="1") as client:
        yield client


def loads(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    name = "gateway_model_load_duration_seconds_count "
    return float(next(line for line in lines if line.startswith(name)).removeprefix(name))


def test_cold_model_is_loaded_while_the_request_is_held(
    stack: Stack, triton: tritonclient.grpc.InferenceServerClient
) -> None:
    """Eight simultaneous requests cause one load; `x-queue-time` has the time they were held."""
    with gateway(stack.triton_grpc_url) as client:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.post(COLD, content=PICTURE), range(8)))
        number_of_loads = loads(client)

    assert [answer.status_code for answer in answers] == [200] * 8
    assert all(int(answer.headers["x-queue-time"]) > 0 for answer in answers)
    assert number_of_loads == 1


def test_503_has_an_estimated_time_that_shrinks(impatient: RunningGateway) -> None:
    """The 503 has the hosted API's text and a shrinking estimate; `x-wait-for-model` waits."""
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(impatient.post, COLD, content=PICTURE)
        answers = [
            held.result(),
            impatient.post(COLD, content=PICTURE, headers={"x-load-model": "0"}),
        ]
    waited = impatient.post(COLD, content=PICTURE, headers=WAIT)

    for answer in answers:
        assert assert_error(answer, 503) == "Model test/cold is currently loading"
        assert isinstance(answer.json()["estimated_time"], float)
        assert int(answer.headers["retry-after"]) >= 1
    first, second = (answer.json()["estimated_time"] for answer in answers)
    assert 20 > first > second >= 1
    assert waited.status_code == 200


@pytest.mark.parametrize("form", ["header 1", "header TRUE", "options"])
def test_every_way_to_ask_for_a_wait_is_understood(impatient: RunningGateway, form: str) -> None:
    """A request waits by a header in any case, or by `wait_for_model` in the body's `options`."""
    if form == "options":
        inputs = base64.b64encode(PICTURE).decode()
        body = {"inputs": inputs, "options": {"wait_for_model": True, "use_gpu": False}}
        answer = impatient.post(COLD, json=body)
    else:
        headers = {"X-Wait-For-Model": form.removeprefix("header ")}
        answer = impatient.post(COLD, content=PICTURE, headers=headers)

    assert answer.status_code == 200


def test_wait_has_a_limit(stack: Stack, triton: tritonclient.grpc.InferenceServerClient) -> None:
    """After `GATEWAY_WAIT_FOR_MODEL_MAX_S` the answer is a 503 without an estimate."""
    with gateway(stack.triton_grpc_url, GATEWAY_WAIT_FOR_MODEL_MAX_S="1") as client:
        answer = client.post(COLD, content=PICTURE, headers=WAIT)

    error = assert_error(answer, 503)
    assert error == "Model too busy, unable to get response in less than 1 second(s)"
    assert "estimated_time" not in answer.json()


def test_scale_up_timeout_holds_a_request_longer(impatient: RunningGateway) -> None:
    """`x-scale-up-timeout` holds a request longer than the gateway's own setting does."""
    headers = {"x-scale-up-timeout": "60"}

    assert impatient.post(COLD, content=PICTURE, headers=headers).status_code == 200


def test_model_is_not_loaded_against_the_callers_wish(
    impatient: RunningGateway, triton: tritonclient.grpc.InferenceServerClient
) -> None:
    """With `x-load-model: 0` the answer is 503; neither it nor a status request loads a model."""
    answer = impatient.post(COLD, content=PICTURE, headers={"x-load-model": "0"})
    status = impatient.get("/status/test/cold").json()
    health = impatient.get(f"{COLD}/health")

    assert "currently loading" in assert_error(answer, 503)
    assert (status["state"], status["loaded"]) == ("Loadable", False)
    assert health.status_code == 503
    assert loads(impatient) == 0
    assert not is_loaded(triton)


def test_client_that_repeats_at_once_gets_one_503_a_second(impatient: RunningGateway) -> None:
    """A client that repeats each 503 at once, as JavaScript clients do, gets one a second."""
    start, refusals = monotonic(), 0
    while (answer := impatient.post(COLD, content=PICTURE)).status_code == 503:
        refusals += 1

    assert answer.status_code == 200
    assert 1 <= refusals <= monotonic() - start


def test_model_that_cannot_be_loaded_is_an_error_with_the_reason(stack: Stack) -> None:
    """A failed load is a 500 with Triton's reason, and later requests do not repeat it."""
    with gateway(stack.triton_grpc_url) as client:
        answers = [client.post("/models/test/broken", content=PICTURE) for _ in range(3)]
        number_of_loads = loads(client)

    for answer in answers:
        assert "Triton could not load the model test/broken: " in assert_error(answer, 500)
        assert answer.json()["error_type"] == "model_load_failed"
    assert number_of_loads == 1


def test_unloaded_model_is_loaded_again(
    impatient: RunningGateway, triton: tritonclient.grpc.InferenceServerClient
) -> None:
    """A model that Triton has unloaded is loaded again by the next request."""
    headers = WAIT | {"x-use-cache": "false"}
    assert impatient.post(COLD, content=PICTURE, headers=headers).status_code == 200
    unload(triton)

    assert impatient.post(COLD, content=PICTURE, headers=headers).status_code == 200


def test_unknown_model_is_404_without_a_wait(impatient: RunningGateway) -> None:
    """An unknown model is 404 also for a request that asks to wait."""
    answer = impatient.post("/models/nobody/nothing", content=PICTURE, headers=WAIT)

    assert assert_error(answer, 404) == UNKNOWN_MODEL
