"""The error table is complete, and Triton's answers map into it."""

import inspect

import grpc
import pytest

from gateway import errors
from gateway.errors import GatewayError
from gateway.triton.failures import translate_failure

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, GatewayError) and cls is not GatewayError
]


def test_every_error_has_its_own_type_and_a_status() -> None:
    """`error_type` is what dashboards and clients tell errors apart by."""
    types = [cls.error_type for cls in CLASSES]

    assert len(set(types)) == len(types)
    assert all(400 <= cls.status <= 504 for cls in CLASSES)
    assert all(cls.retry_after_s for cls in CLASSES if cls.status in {429, 503})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_stands_in_the_modules_tree(cls: type[GatewayError]) -> None:
    """The overview at the top of the module names each with its status."""
    assert f"── {cls.__name__} " in (errors.__doc__ or "")
    line = next(row for row in (errors.__doc__ or "").splitlines() if f" {cls.__name__} " in row)
    assert str(cls.status) in line


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_grpc_code_becomes_an_error_of_ours(code: grpc.StatusCode) -> None:
    """None falls through, and none shows Triton's own text."""
    error = translate_failure(code.name, "secret text of Triton", "a/b", "host:1")

    assert type(error) in CLASSES
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("code", "message", "status"),
    [
        ("NOT_FOUND", "Request for unknown model: 'm' is not found", 404),
        ("NOT_FOUND", "Request for unknown model: 'm' has no available versions", 503),
        ("UNAVAILABLE", "Request for unknown model: 'm' version 1 is not at ready state", 503),
        ("UNAVAILABLE", "failed to connect to all addresses", 503),
        ("UNAVAILABLE", "[request id: x] Request timeout expired", 504),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", 504),
        ("INTERNAL", "Stub process is not healthy.", 500),
        ("INVALID_ARGUMENT", "unexpected shape for input", 500),
    ],
)
def test_one_grpc_code_is_told_apart_by_its_message(code: str, message: str, status: int) -> None:
    """The texts are Triton's, `failures` is the one module that knows them."""
    assert translate_failure(code, message, "a/b", "host:1").status == status
