"""Every way a request can fail, with the HTTP status of the answer.

    GatewayError
    ├── MalformedRequest     400  the body is not an image, a JSON object or base64 text
    ├── InvalidParameters    400  a parameter is unknown or has a wrong value
    ├── InvalidImage         400  the image cannot be decoded, or is over a limit
    ├── UnknownTask          400  the URL names a task other than image-classification
    ├── Unauthorized         401  the caller has no token of `GATEWAY_TOKENS_FILE`
    ├── ModelNotFound        404  the model repository has no such model
    ├── NoDefaultModel       404  the URL names no model and there is no default one
    ├── RequestTimeout       408  the body did not arrive in time
    ├── PayloadTooLarge      413  the body is larger than `GATEWAY_MAX_BODY_BYTES`
    ├── UnsupportedContentEncoding 415  the gateway does not decode the body's `Content-Encoding`
    ├── Overloaded           429  `GATEWAY_MAX_INFLIGHT` requests are in work already
    ├── ClientClosedRequest  499  the client closed its connection; the answer is not read
    ├── InferenceFailed      500  Triton took the request and failed
    ├── InvalidModel         500  the model's `config.pbtxt` lacks a usable contract
    ├── ModelLoadFailed      500  Triton could not load the model
    ├── ModelNotReady        503  the model is not ready
    ├── ModelLoading         503  the model is being loaded
    ├── ModelTooBusy         503  the model was not loaded within the caller's time
    ├── TritonUnreachable    503  Triton does not answer
    └── DeadlineExceeded     504  `GATEWAY_REQUEST_TIMEOUT_S` passed before the answer

The message becomes the `error` of the JSON answer, so it never holds a foreign exception's text.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

DAMAGED: Final = "image file is truncated or damaged"

# A caller's text is repeated up to this length, so that answers stay short.
_MAX_ECHO_CHARS: Final = 200


class GatewayError(Exception):
    """A failure with a status and a message that the caller may read."""

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "internal"
    retry_after_s: int | None = None
    extra: Mapping[str, float] = {}
    """Further keys of the JSON answer, beside `error` and `error_type`."""
    headers: Mapping[str, str] = {}
    """Further headers of the answer, beside `Retry-After`."""


class MalformedRequest(GatewayError):
    """The body is not an image, a JSON object or base64 text."""

    status = 400
    error_type = "malformed_request"


class InvalidParameters(GatewayError):
    """A parameter is unknown, or its value is not one the task takes."""

    status = 400
    error_type = "invalid_parameters"


class InvalidImage(GatewayError):
    """The image cannot be decoded, or is over a limit."""

    status = 400
    error_type = "invalid_image"


class UnknownTask(GatewayError):
    """The URL names a task other than image-classification."""

    status = 400
    error_type = "unknown_task"


class Unauthorized(GatewayError):
    """The request has no token that is in `GATEWAY_TOKENS_FILE`."""

    status = 401
    error_type = "unauthorized"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # huggingface_hub shows `x-error-message` to its user.
        self.headers = {
            "www-authenticate": 'Bearer realm="Authentication required", charset="UTF-8"',
            "x-error-message": message,
        }


class ModelNotFound(GatewayError):
    """The model repository has no model of that id."""

    status = 404
    error_type = "model_not_found"

    def __init__(self, model_id: str) -> None:
        # The first words are the hosted API's, because clients look for them.
        super().__init__(
            f"Model {model_id[:_MAX_ECHO_CHARS]} does not exist; GET /info lists the loaded models"
        )


class NoDefaultModel(GatewayError):
    """The URL names no model and there is no default one."""

    status = 404
    error_type = "no_default_model"


class RequestTimeout(GatewayError):
    """The client did not send its body in time."""

    status = 408
    error_type = "request_timeout"


class PayloadTooLarge(GatewayError):
    """The body is larger than `GATEWAY_MAX_BODY_BYTES`."""

    status = 413
    error_type = "payload_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The request body is larger than {limit_bytes} bytes, the limit here"
            " (GATEWAY_MAX_BODY_BYTES); send a smaller image"
        )


class UnsupportedContentEncoding(GatewayError):
    """The gateway does not decode the body's `Content-Encoding`."""

    status = 415
    error_type = "unsupported_content_encoding"

    def __init__(self, coding: str, supported: Sequence[str]) -> None:
        names = ", ".join(supported)
        super().__init__(
            f"The Content-Encoding {coding[:_MAX_ECHO_CHARS]!r} is not supported; send the body"
            f" with one of {names}, or without"
        )
        # Tells the client which codings it may send (RFC 9110 §15.5.16).
        self.headers = {"accept-encoding": names}


class Overloaded(GatewayError):
    """`GATEWAY_MAX_INFLIGHT` requests are in work already."""

    status = 429
    error_type = "overloaded"
    retry_after_s = 1


class ClientClosedRequest(GatewayError):
    """The client closed its connection before it had its answer."""

    status = 499
    error_type = "client_closed_request"


class InferenceFailed(GatewayError):
    """Triton failed to run the model, or its logits cannot be used."""

    status = 500
    error_type = "inference_failed"


class InvalidModel(GatewayError):
    """Triton serves the model, but its `config.pbtxt` has no usable contract."""

    status = 500
    error_type = "invalid_model"


class ModelLoadFailed(GatewayError):
    """Triton could not load the model; the message has Triton's reason."""

    status = 500
    error_type = "model_load_failed"


class ModelLoading(GatewayError):
    """The model is being loaded; `estimated_time` is the expected rest of the load in seconds."""

    status = 503
    error_type = "model_loading"
    retry_after_s = 1

    def __init__(self, model_id: str, remaining_s: float) -> None:
        super().__init__(f"Model {model_id} is currently loading")
        self.extra = {"estimated_time": remaining_s}
        self.retry_after_s = max(1, math.ceil(remaining_s))


class ModelTooBusy(GatewayError):
    """The model was not loaded within the time that the caller asked to wait."""

    status = 503
    error_type = "model_too_busy"
    retry_after_s = 1

    def __init__(self, waited_s: float) -> None:
        super().__init__(
            f"Model too busy, unable to get response in less than {waited_s:g} second(s)"
        )


class ModelNotReady(GatewayError):
    """The model is not ready for requests."""

    status = 503
    error_type = "model_not_ready"
    retry_after_s = 1


class TritonUnreachable(GatewayError):
    """The gateway cannot connect to Triton."""

    status = 503
    error_type = "triton_unreachable"
    retry_after_s = 1


class DeadlineExceeded(GatewayError):
    """The answer was not ready within `GATEWAY_REQUEST_TIMEOUT_S`."""

    status = 504
    error_type = "deadline_exceeded"
