"""The gateway's process handles connections of all kinds, a busy port, and its end."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from gateway.server import http_settings
from gateway.settings import Settings
from tests.gateways import RunningGateway, gateway
from tests.pictures import PICTURES
from tests.stack import ROOT, STOP_TIMEOUT_S, WAIT_TIMEOUT_S, Stack, wait_until

MODEL = "/models/test/vit"
PICTURE = PICTURES["png smaller"]
KEEP_ALIVE_S = 2


@pytest.fixture(scope="module")
def service(stack: Stack) -> Iterator[RunningGateway]:
    """A gateway that closes idle connections after two seconds."""
    with gateway(stack.triton_grpc_url, GATEWAY_KEEP_ALIVE_S=str(KEEP_ALIVE_S)) as client:
        yield client


@contextmanager
def connection(client: httpx.Client) -> Iterator[socket.socket]:
    url = client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=WAIT_TIMEOUT_S) as sock:
        yield sock


def answer_on(sock: socket.socket) -> bytes:
    """Read the next answer, whose length is in `Content-Length`."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += read_some(sock)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += read_some(sock)
    return head + b"\r\n\r\n" + body


def read_some(sock: socket.socket) -> bytes:
    received = sock.recv(65536)
    assert received, "the connection was closed before its answer"
    return received


def is_closed_by_the_server(sock: socket.socket) -> bool:
    """Wait until the server closes the connection; false if it sends something instead."""
    return sock.recv(1) == b""


@pytest.mark.parametrize("is_late", [False, True], ids=["with its head", "after its head"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["by length", "chunked"])
@pytest.mark.parametrize("token", ["h2c", "websocket", "TLS/1.2", "HTTP/3, irc/6.9"])
def test_upgrade_is_ignored(
    service: RunningGateway, token: str, is_chunked: bool, is_late: bool
) -> None:
    """A request that offers an upgrade is answered as any other (RFC 9110 §7.8).

    Java's client offers h2c.
    """
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(PICTURE)}"
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE) if is_chunked else PICTURE
    head = (
        f"POST {MODEL} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        f"Upgrade: {token}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n{length}\r\n\r\n"
    ).encode()

    with connection(service) as sock:
        for _ in range(2):
            if is_late:
                sock.sendall(head)
                # Two requests in flight, this one and `/metrics`: the head has been read.
                wait_until(lambda: "gateway_inflight_requests 2.0" in service.get("/metrics").text)
                sock.sendall(body)
            else:
                sock.sendall(head + body)
            assert answer_on(sock).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /models/test/vit HTTP/1.1\r\nHo", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["nothing", "half a head", "a request"],
)
def test_connection_without_a_whole_head_ends(service: RunningGateway, sent: bytes) -> None:
    """A connection that is idle or sends half a head is closed after `GATEWAY_KEEP_ALIVE_S`."""
    with connection(service) as sock:
        sock.sendall(sent)
        if sent.endswith(b"\r\n\r\n"):
            assert answer_on(sock).startswith(b"HTTP/1.1 200")

        assert is_closed_by_the_server(sock)


def test_idle_time_is_longer_than_a_load_balancers() -> None:
    """The default time is above the 60 s after which most load balancers close.

    A server that closes first would lose a request on its way. The test above shows that the server
    applies the time.
    """
    assert http_settings(Settings()).header_read_timeout == 75_000
    assert http_settings(Settings(keep_alive_s=0.5)).header_read_timeout == 500


def test_body_may_take_longer_than_a_connection_may_be_idle(stack: Stack) -> None:
    """A slow body is not bounded by the idle time, and is 408 after the request's time limit."""
    keep_alive = {"GATEWAY_KEEP_ALIVE_S": "0.5", "GATEWAY_REQUEST_TIMEOUT_S": "1.5"}
    head = f"POST {MODEL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PICTURE)}\r\n\r\n"
    with gateway(stack.triton_grpc_url, **keep_alive) as client, connection(client) as sock:
        sock.sendall(head.encode() + PICTURE[:1])

        assert answer_on(sock).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "sent",
    [
        b"what is this\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2_000_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    ],
    ids=["text", "TLS", "no length", "an endless header", "endless headers"],
)
def test_bytes_that_are_not_http_end_only_their_connection(
    service: RunningGateway, sent: bytes
) -> None:
    """Bytes that are not HTTP get a 4xx or a closed connection; other clients are served."""
    with connection(service) as sock:
        try:
            sock.sendall(sent)
            received = sock.makefile("rb").read()
        except ConnectionError:
            # The server closed the connection before all was sent.
            received = b""

    assert received[:10] in {b"", b"HTTP/1.1 4"}
    assert service.post(MODEL, content=PICTURE).status_code == 200


def test_stop_lets_requests_end(stack: Stack) -> None:
    """After SIGTERM a request that is half sent is answered, and then its connection closes."""
    head = f"POST {MODEL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PICTURE)}\r\n\r\n"
    with gateway(stack.triton_grpc_url) as client, connection(client) as sock:
        sock.sendall(head.encode() + PICTURE[:1])
        wait_until(lambda: "gateway_inflight_requests 2.0" in client.get("/metrics").text)
        client.stop()
        wait_until(lambda: refuses_connections(client))
        sock.sendall(PICTURE[1:])
        answer = answer_on(sock)

        assert answer.startswith(b"HTTP/1.1 200")
        assert is_closed_by_the_server(sock)


def refuses_connections(client: httpx.Client) -> bool:
    try:
        with connection(client):
            return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # The listener closed while it took this connection; the next one is refused.
        return False


def test_workers_end_with_their_parent(stack: Stack) -> None:
    """After a kill of the parent process, its workers end and free the port."""
    with gateway(stack.triton_grpc_url) as client:
        assert client.post(MODEL, content=PICTURE).status_code == 200
        client.kill()
        wait_until(lambda: refuses_connections(client))


def test_port_in_use_is_refused(service: RunningGateway, stack: Stack) -> None:
    """A second gateway on the same port exits with code 2 and one line."""
    port = str(service.base_url.port)
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        cwd=ROOT,
        env={"GATEWAY_PORT": port, "GATEWAY_TRITON_URL": stack.triton_grpc_url},
        capture_output=True,
        text=True,
        timeout=STOP_TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 cannot be opened" in done.stderr
    assert done.stderr.count("\n") == 1


def test_any_asgi_server_runs_the_application(stack: Stack) -> None:
    """Under uvicorn, the application answers, reports errors, and notices a client that leaves."""
    with uvicorn_gateway(stack.triton_grpc_url) as client:
        assert client.post(MODEL, content=PICTURE).status_code == 200
        assert client.post(MODEL, content=b"no image").status_code == 400
        assert client.get("/info").status_code == 200
        head = f"POST {MODEL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PICTURE)}\r\n\r\n"
        with connection(client) as sock:
            sock.sendall(head.encode() + PICTURE[:1])
        wait_until(lambda: 'code="499"' in client.get("/metrics").text)


@contextmanager
def uvicorn_gateway(triton_url: str) -> Iterator[httpx.Client]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = "http://{}:{}".format(*listener.getsockname())
        argv = ["uvicorn", "--factory", "gateway.worker:asgi_app", "--fd", str(listener.fileno())]
        with subprocess.Popen(
            [sys.executable, "-m", *argv],
            cwd=ROOT,
            env={"GATEWAY_TRITON_URL": triton_url},
            pass_fds=[listener.fileno()],
        ) as process:
            try:
                # The socket listens already: the first request waits for the server.
                with httpx.Client(base_url=url, timeout=WAIT_TIMEOUT_S) as client:
                    yield client
            finally:
                process.terminate()
                process.wait(STOP_TIMEOUT_S)
