"""Every error has a type and a status, and every failure of Triton becomes such an error."""

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
    """Each error has its own `error_type` and a 4xx or 5xx; 429 and 503 have `Retry-After`."""
    types = [cls.error_type for cls in CLASSES]

    assert len(set(types)) == len(types)
    assert all(400 <= cls.status <= 504 for cls in CLASSES)
    assert all(cls.retry_after_s for cls in CLASSES if cls.status in {429, 503})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_module_docstring_lists_every_error(cls: type[GatewayError]) -> None:
    """The tree at the top of `gateway.errors` names each error with its status."""
    assert f"── {cls.__name__} " in (errors.__doc__ or "")
    line = next(row for row in (errors.__doc__ or "").splitlines() if f" {cls.__name__} " in row)
    assert str(cls.status) in line


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_grpc_status_becomes_a_gateway_error(code: grpc.StatusCode) -> None:
    """Each gRPC status becomes a `GatewayError` that does not show Triton's own text."""
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
        ("INVALID_ARGUMENT", "unexpected shape for input 'pixel_values' for model 'm'", 503),
        ("INVALID_ARGUMENT", "missing required input(s) ['image']", 503),
        ("INVALID_ARGUMENT", "unexpected inference output 'logits'", 500),
    ],
)
def test_message_decides_between_causes_of_one_grpc_status(
    code: str, message: str, status: int
) -> None:
    """Triton's message decides the error where one gRPC status has several causes."""
    assert translate_failure(code, message, "a/b", "host:1").status == status
