"""Limits and faults, tested on another gateway in front of the stack's Triton."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.gateways import gateway
from tests.pictures import PICTURES
from tests.service.test_errors import assert_error
from tests.stack import STOP_TIMEOUT_S, Stack, wait_until

MODEL = "/models/test/vit"
PICTURE = PICTURES["png smaller"]


@contextmanager
def half_a_request(client: httpx.Client) -> Iterator[socket.socket]:
    """A connection that has sent its headers and one byte of its body."""
    url = client.base_url
    head = (
        f"POST {MODEL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Length: {len(PICTURE)}\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port or 80), timeout=STOP_TIMEOUT_S) as sock:
        sock.sendall(head.encode() + PICTURE[:1])
        wait_until(lambda: "gateway_inflight_requests 2.0" in client.get("/metrics").text)
        yield sock


@contextmanager
def paused_triton(stack: Stack) -> Iterator[None]:
    """A block in which the stack's Triton takes calls but does not work on them."""
    (triton,) = (p for p in stack.processes() if p.name() == "tritonserver")
    triton.suspend()
    try:
        yield
    finally:
        triton.resume()


def test_request_over_the_limit_is_429_at_once(stack: Stack) -> None:
    """A request over `GATEWAY_MAX_INFLIGHT` is 429 at once; after the first, the next is served."""
    with gateway(stack.triton_grpc_url, GATEWAY_MAX_INFLIGHT="1") as client:
        with half_a_request(client) as sock:
            refused = client.post(MODEL, content=PICTURE)
            sock.sendall(PICTURE[1:])
            answer = sock.makefile("rb").read()
        after = client.post(MODEL, content=PICTURE)

    assert "GATEWAY_MAX_INFLIGHT" in assert_error(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert answer.startswith(b"HTTP/1.1 200")
    assert after.status_code == 200


def test_body_that_never_ends_is_408(stack: Stack) -> None:
    """A body that does not arrive in time is 408, and then another request is admitted."""
    with gateway(
        stack.triton_grpc_url, GATEWAY_REQUEST_TIMEOUT_S="0.5", GATEWAY_MAX_INFLIGHT="1"
    ) as client:
        with half_a_request(client) as sock:
            answer = sock.makefile("rb").read()
        after = client.post(MODEL, content=PICTURE)

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"GATEWAY_REQUEST_TIMEOUT_S" in answer
    assert after.status_code == 200


def test_model_that_does_not_answer_is_504(stack: Stack) -> None:
    """While Triton is suspended a request is 504 in time; afterwards requests are served."""
    unseen = {"x-use-cache": "false"}
    with gateway(stack.triton_grpc_url, GATEWAY_REQUEST_TIMEOUT_S="2") as client:
        assert client.post(MODEL, content=PICTURE).status_code == 200
        with paused_triton(stack):
            late = client.post(MODEL, content=PICTURE, headers=unseen)
        after = client.post(MODEL, content=PICTURE, headers=unseen)

    assert "2 s (GATEWAY_REQUEST_TIMEOUT_S)" in assert_error(late, 504)
    assert after.status_code == 200


def test_no_triton_is_503_on_every_route_that_needs_it() -> None:
    """Without Triton, routes that need it are 503 with `Retry-After`, and `/metrics` is 200."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
    with gateway(nowhere) as client:
        health, info = client.get("/health"), client.get("/info")
        answer = client.post(MODEL, content=PICTURE)
        metrics = client.get("/metrics")

    assert_error(health, 503)
    assert_error(info, 503)
    assert "GATEWAY_TRITON_URL" in assert_error(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1
    assert metrics.status_code == 200


def test_default_model_that_is_not_loaded_is_unhealthy(stack: Stack) -> None:
    """`/health` is 503 for a default model that is not loaded, and 200 without a default."""
    with gateway(stack.triton_grpc_url, GATEWAY_DEFAULT_MODEL="nobody/nothing") as client:
        assert "nobody/nothing" in assert_error(client.get("/health"), 503)
    with gateway(stack.triton_grpc_url) as client:
        assert client.get("/health").status_code == 200


def test_body_and_pixel_limits_are_the_settings(stack: Stack) -> None:
    """A body and an image of exactly the limits pass, and one byte or pixel more does not."""
    limit = {"GATEWAY_MAX_BODY_BYTES": str(len(PICTURE)), "GATEWAY_MAX_IMAGE_PIXELS": str(40 * 31)}
    with gateway(stack.triton_grpc_url, **limit) as client:
        assert client.post(MODEL, content=PICTURE).status_code == 200
        assert_error(client.post(MODEL, content=PICTURE + b"x"), 413)
    with gateway(stack.triton_grpc_url, GATEWAY_MAX_IMAGE_PIXELS=str(40 * 31 - 1)) as client:
        assert "GATEWAY_MAX_IMAGE_PIXELS" in assert_error(client.post(MODEL, content=PICTURE), 400)


def triton_calls(stack: Stack) -> int:
    """Calls that Triton has answered for the model, whatever the number of their images."""
    text = httpx.get(stack.triton_metrics_url).text
    name = 'nv_inference_request_success{model="test--vit",version="1"} '
    return int(next(row for row in text.splitlines() if row.startswith(name)).removeprefix(name))


def decoded_images(client: httpx.Client) -> int:
    name = 'gateway_stage_duration_seconds_count{stage="decode"} '
    rows = client.get("/metrics").text.splitlines()
    return round(float(next(r for r in rows if r.startswith(name)).removeprefix(name)))


@pytest.mark.parametrize(("limit", "calls"), [("1", 2), ("8", 3)])
def test_images_over_the_limit_of_calls_share_the_next_call(
    stack: Stack, limit: str, calls: int
) -> None:
    """With `GATEWAY_MAX_CALLS_PER_MODEL=1`, images wait while a call runs, and leave together."""
    with (
        gateway(
            stack.triton_grpc_url, GATEWAY_MAX_CALLS_PER_MODEL=limit, GATEWAY_CACHE_BYTES="0"
        ) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        assert client.post(MODEL, content=PICTURE).status_code == 200
        before = triton_calls(stack)
        with paused_triton(stack):
            answers = []
            for images in (2, 3, 4):
                answers.append(pool.submit(client.post, MODEL, content=PICTURE))
                wait_until(lambda images=images: decoded_images(client) == images)  # type: ignore[misc]  # a lambda's default
        assert {answer.result().status_code for answer in answers} == {200}

    assert triton_calls(stack) - before == calls
