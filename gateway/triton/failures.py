"""Translate failed calls to Triton into errors of the gateway. Pure."""

import re

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InferenceFailed,
    ModelNotFound,
    ModelNotReady,
    TritonUnreachable,
)

# Triton's words for an input of another name or shape than the model has: the model has been
# replaced since its contract was read.
_OTHER_INPUT = re.compile(
    "missing required input|unexpected inference input|unexpected shape for input"
)
# Enough for Triton's reason, whose tracebacks may be pages.
_REASON_CHARS = 400


def translate_failure(code: str, message: str, model_id: str, url: str) -> GatewayError:
    """The gateway's error for a failed call.

    One gRPC code stands for several cases, which differ in their message.

    Args:
        code: Name of the gRPC status code.
        message: Its details.
        model_id: The model that the call was about; empty for calls about no model.
        url: Triton's address.
    """
    if code == "NOT_FOUND" and "has no available versions" not in message:
        return ModelNotFound(model_id)
    if code == "DEADLINE_EXCEEDED" or "Request timeout expired" in message:
        return DeadlineExceeded(f"Model {model_id} gave no answer in time")
    if code == "NOT_FOUND" or "is not at ready state" in message:
        return ModelNotReady(f"Model {model_id} is not ready")
    if code == "UNAVAILABLE":
        return TritonUnreachable(f"Triton does not answer at {url} (GATEWAY_TRITON_URL)")
    if _OTHER_INPUT.search(message):
        return ModelNotReady(
            f"Model {model_id} takes another input than its contract says; export it again"
        )
    return InferenceFailed(f"Model {model_id} failed on this request")


def first_line(message: str) -> str:
    """Triton's message without its further lines, which hold tracebacks."""
    first = next((line for line in message.splitlines() if line.strip()), "no reason given")
    return first.strip()[:_REASON_CHARS]
