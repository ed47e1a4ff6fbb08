"""Models that are in the repository but not loaded: what the headers mean, on a real Triton."""

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
    """Triton itself, with `test/cold` not loaded."""
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
    """A gateway that holds a cold request as short as it can."""
    with gateway(stack.triton_grpc_url, GATEWAY_COLD_START_WAIT_S="1") as client:
        yield client


def loads(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    name = "gateway_model_load_duration_seconds_count "
    return float(next(line for line in lines if line.startswith(name)).removeprefix(name))


def test_cold_model_is_loaded_while_the_request_is_held(
    stack: Stack, triton: tritonclient.grpc.InferenceServerClient
) -> None:
    """One load for all who ask at once; `x-queue-time` says how long they were held."""
    with gateway(stack.triton_grpc_url) as client:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.post(COLD, content=PICTURE), range(8)))
        number_of_loads = loads(client)

    assert [answer.status_code for answer in answers] == [200] * 8
    assert all(int(answer.headers["x-queue-time"]) > 0 for answer in answers)
    assert number_of_loads == 1


def test_impatient_gateway_answers_503_with_a_time_that_shrinks(impatient: RunningGateway) -> None:
    """The hosted API's words; whoever then waits gets the answer."""
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
def test_every_way_of_asking_to_wait_is_understood(impatient: RunningGateway, form: str) -> None:
    """Headers of Python and JavaScript clients, and the body's `options`."""
    if form == "options":
        inputs = base64.b64encode(PICTURE).decode()
        body = {"inputs": inputs, "options": {"wait_for_model": True, "use_gpu": False}}
        answer = impatient.post(COLD, json=body)
    else:
        headers = {"X-Wait-For-Model": form.removeprefix("header ")}
        answer = impatient.post(COLD, content=PICTURE, headers=headers)

    assert answer.status_code == 200


def test_wait_has_its_own_bound(
    stack: Stack, triton: tritonclient.grpc.InferenceServerClient
) -> None:
    """Then it is another 503, without an estimate: the caller has waited already."""
    with gateway(stack.triton_grpc_url, GATEWAY_WAIT_FOR_MODEL_MAX_S="1") as client:
        answer = client.post(COLD, content=PICTURE, headers=WAIT)

    error = assert_error(answer, 503)
    assert error == "Model too busy, unable to get response in less than 1 second(s)"
    assert "estimated_time" not in answer.json()


def test_scale_up_timeout_is_a_wait_of_its_own_length(impatient: RunningGateway) -> None:
    """Longer than the gateway's own hold, in seconds."""
    headers = {"x-scale-up-timeout": "60"}

    assert impatient.post(COLD, content=PICTURE, headers=headers).status_code == 200


def test_nothing_is_loaded_for_a_caller_that_says_so(
    impatient: RunningGateway, triton: tritonclient.grpc.InferenceServerClient
) -> None:
    """503 at once, and the model stays as it is; asking for its state loads it neither."""
    answer = impatient.post(COLD, content=PICTURE, headers={"x-load-model": "0"})
    status = impatient.get("/status/test/cold").json()
    health = impatient.get(f"{COLD}/health")

    assert "currently loading" in assert_error(answer, 503)
    assert (status["state"], status["loaded"]) == ("Loadable", False)
    assert health.status_code == 503
    assert loads(impatient) == 0
    assert not is_loaded(triton)


def test_client_that_asks_again_at_once_cannot_hammer(impatient: RunningGateway) -> None:
    """Released JavaScript clients repeat a 503 without delay or bound: one answer a second."""
    start, refusals = monotonic(), 0
    while (answer := impatient.post(COLD, content=PICTURE)).status_code == 503:
        refusals += 1

    assert answer.status_code == 200
    assert 1 <= refusals <= monotonic() - start


def test_model_that_cannot_be_loaded_is_an_error_with_the_reason(stack: Stack) -> None:
    """Not an eternal 503; and Triton is not made to try again by every request."""
    with gateway(stack.triton_grpc_url) as client:
        answers = [client.post("/models/test/broken", content=PICTURE) for _ in range(3)]
        number_of_loads = loads(client)

    for answer in answers:
        assert "Triton could not load the model test/broken: " in assert_error(answer, 500)
        assert answer.json()["error_type"] == "model_load_failed"
    assert number_of_loads == 1


def test_model_that_was_unloaded_meanwhile_is_loaded_again(
    impatient: RunningGateway, triton: tritonclient.grpc.InferenceServerClient
) -> None:
    """Also when its contract is still fresh in the gateway's memory."""
    headers = WAIT | {"x-use-cache": "false"}
    assert impatient.post(COLD, content=PICTURE, headers=headers).status_code == 200
    unload(triton)

    assert impatient.post(COLD, content=PICTURE, headers=headers).status_code == 200


def test_model_outside_the_repository_is_404_at_once(impatient: RunningGateway) -> None:
    """Whatever the caller would wait for."""
    answer = impatient.post("/models/nobody/nothing", content=PICTURE, headers=WAIT)

    assert assert_error(answer, 404) == UNKNOWN_MODEL
