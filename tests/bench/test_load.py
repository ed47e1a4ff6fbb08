"""A load of several processes counts as one."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.load import Outcome, report, shares
from bench.measure import closed, run_json


@pytest.mark.parametrize(
    ("clients", "processes", "expected"),
    [
        pytest.param(256, 4, [64, 64, 64, 64], id="even"),
        pytest.param(10, 4, [3, 3, 2, 2], id="uneven"),
        pytest.param(2, 4, [1, 1], id="fewer-clients-than-processes"),
        pytest.param(7, 1, [7], id="one-process"),
    ],
)
def test_clients_are_shared_out(clients: int, processes: int, expected: list[int]) -> None:
    assert shares(clients, processes) == expected


def test_figures_are_of_all_processes() -> None:
    found = report([Outcome(2.0, [0.004] * 6, 1, 0.5), Outcome(1.0, [0.002] * 2, 2, 0.3)])

    assert found["answered"] == 8
    assert found["errors"] == 3
    # Each process by its own time: 6 in two seconds, 2 in one.
    assert found["requests_per_s"] == 5
    assert found["p50_ms"] == 4
    assert found["own_cpu_ms_per_request"] == pytest.approx(100)


class _Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bodies: list[bytes]
    clients: set[tuple[str, int]]

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.clients.add(self.client_address)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    _Endpoint.bodies, _Endpoint.clients = [], set()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/models/a"
        server.shutdown()


def test_several_processes_send_other_bytes_each(url: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(b"picture")

    found = run_json(["-m", "bench.load", url, str(picture), *closed(5, 0.3, processes=2)])

    assert found["errors"] == 0
    assert found["answered"] == len(_Endpoint.bodies) > 5
    assert len(_Endpoint.clients) == 5
    assert len(set(_Endpoint.bodies)) == len(_Endpoint.bodies)
    assert {body[:7] for body in _Endpoint.bodies} == {b"picture"}
