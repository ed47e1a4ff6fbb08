"""Several processes share a port and act as one service."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from tests.gateways import RunningGateway, gateway
from tests.pictures import PICTURES
from tests.service.test_operations import samples
from tests.stack import ROOT, STOP_TIMEOUT_S, Stack, run_vitriton, wait_until

MODEL = "/models/test/vit"
PICTURE = PICTURES["png smaller"]
WORKERS = 3
COUNTER = "gateway_requests_total[('code', '200'), ('route', '/models/{model_id}')]"


def workers(client: RunningGateway) -> list[psutil.Process]:
    """The worker processes, without the resource tracker of multiprocessing."""
    found = []
    for child in psutil.Process(client.pid).children():
        # A process that has just ended has no command line.
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def post(client: RunningGateway) -> int:
    """One request over a connection of its own, so that any process may take it."""
    return client.post(MODEL, content=PICTURE, headers={"connection": "close"}).status_code


def test_metrics_are_the_sum_over_all_workers(stack: Stack) -> None:
    """Whichever process answers `/metrics`, the metrics are the sum over all processes."""
    with gateway(stack.triton_grpc_url, GATEWAY_WORKERS=str(WORKERS)) as client:
        wait_until(lambda: len(workers(client)) == WORKERS)
        with ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(lambda _: post(client), range(120)))
        found = [samples(client) for _ in range(2 * WORKERS)]

    assert codes == [200] * 120
    assert {sample[COUNTER] for sample in found} == {120}
    assert {sample["gateway_inflight_requests[]"] for sample in found} == {1}


def test_worker_that_dies_is_replaced(stack: Stack) -> None:
    """A killed worker is replaced; its counters stay, and its requests in flight do not."""
    with gateway(stack.triton_grpc_url, GATEWAY_WORKERS="2") as client:
        wait_until(lambda: len(workers(client)) == 2)
        for _ in range(20):
            assert post(client) == 200
        victim = workers(client)[0]
        victim.kill()
        wait_until(lambda: victim not in workers(client) and len(workers(client)) == 2)
        wait_until(lambda: samples(client)["gateway_inflight_requests[]"] == 1)

        assert post(client) == 200
        assert samples(client)[COUNTER] == 21


def test_one_signal_stops_all(stack: Stack) -> None:
    """After SIGTERM to the parent, no process is left."""
    with gateway(stack.triton_grpc_url, GATEWAY_WORKERS="2") as client:
        wait_until(lambda: len(workers(client)) == 2)
        processes = psutil.Process(client.pid).children(recursive=True)

    _, alive = psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
    assert alive == []


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_number_of_workers_is_checked(value: str) -> None:
    """A number of workers below 1 ends the command with code 2 and the setting's name."""
    done = run_vitriton(["gateway"], ROOT, GATEWAY_WORKERS=value)

    assert done.returncode == 2
    assert "GATEWAY_WORKERS" in done.stderr
