"""Several processes share a port and act as one service."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import psutil
import pytest

from tests.gateways import RunningGateway, gateway
from tests.pictures import PICTURES
from tests.service.test_operations import samples
from tests.stack import (
    ROOT,
    STOP_TIMEOUT_S,
    WAIT_TIMEOUT_S,
    Stack,
    run_vitriton,
    wait_until,
)

MODEL = "/models/test/vit"
PICTURE = PICTURES["png smaller"]
WORKERS = 3
MANY_WORKERS = 8
CONNECTIONS = 64
TRIES = 4
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


def connections(worker: psutil.Process, port: int) -> int:
    """Open connections of clients that a worker has accepted."""
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
        for each in worker.net_connections("tcp")
    )


def test_connections_spread_over_all_workers(stack: Stack) -> None:
    """Of 64 connections no worker is without one, and none has more than 2.5 times its share.

    The kernel deals them out by chance, so one try in hundreds has a worker without any, and one of
    the tries may fail.
    """
    most = 2.5 * CONNECTIONS / MANY_WORKERS
    with gateway(stack.triton_grpc_url, GATEWAY_WORKERS=str(MANY_WORKERS)) as client:
        wait_until(lambda: len(workers(client)) == MANY_WORKERS)
        tries = [spread(client) for _ in range(TRIES)]

    assert {sum(counts) for counts in tries} == {CONNECTIONS}
    assert sum(min(counts) > 0 and max(counts) <= most for counts in tries) >= TRIES - 1, tries


def spread(client: RunningGateway) -> list[int]:
    """How many of some connections that are open at the same time each worker has."""
    port = client.base_url.port
    assert port is not None
    with ExitStack() as opened:
        for _ in range(CONNECTIONS):
            address = client.base_url.host, port
            sock = opened.enter_context(socket.create_connection(address, WAIT_TIMEOUT_S))
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
        return [connections(worker, port) for worker in workers(client)]


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
