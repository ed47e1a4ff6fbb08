"""Every way a request can fail, with the HTTP status it answers.

    GatewayError
    ├── MalformedRequest     400  the body is not what the API takes
    ├── InvalidParameters    400  `parameters` holds something the task does not know
    ├── InvalidImage         400  the bytes are no image, or one past a limit
    ├── UnknownTask          400  the URL names a task other than image-classification
    ├── Unauthorized         401  no token, or one that is not in `GATEWAY_TOKENS_FILE`
    ├── ModelNotFound        404  the model repository has no such model
    ├── NoDefaultModel       404  the URL names no model and there is no default one
    ├── RequestTimeout       408  the body did not arrive in time
    ├── PayloadTooLarge      413  the body is past `GATEWAY_MAX_BODY_BYTES`
    ├── UnsupportedContentEncoding 415  the body's `Content-Encoding` is none that is decoded
    ├── Overloaded           429  `GATEWAY_MAX_INFLIGHT` requests are being worked on
    ├── ClientClosedRequest  499  the client went away; nobody reads the answer
    ├── InferenceFailed      500  Triton took the request and failed
    ├── InvalidModel         500  the model's `config.pbtxt` lacks a usable contract
    ├── ModelLoadFailed      500  Triton tried to load the model and could not
    ├── ModelNotReady        503  Triton is up, the model is not
    ├── ModelLoading         503  the same, and it is being loaded
    ├── ModelTooBusy         503  the same, after all the time the caller was ready to wait
    ├── TritonUnreachable    503  Triton does not answer
    └── DeadlineExceeded     504  `GATEWAY_REQUEST_TIMEOUT_S` ran out after the body was read

The message becomes the `error` of the JSON answer, so it never holds a foreign exception's text.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

DAMAGED: Final = "image file is truncated or damaged"

# A URL may be as long as a header; an answer stays short.
_ECHO_CHARS: Final = 200


class GatewayError(Exception):
    """A failure with a status and a message that the caller may read."""

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "internal"
    retry_after_s: int | None = None
    extra: Mapping[str, float] = {}
    """Keys of the JSON answer beside `error` and `error_type`."""
    headers: Mapping[str, str] = {}
    """Headers of the answer beside `Retry-After`."""


class MalformedRequest(GatewayError):
    """The body is not an image, a JSON object or base64 text."""

    status = 400
    error_type = "malformed_request"


class InvalidParameters(GatewayError):
    """A parameter is unknown, or its value is not one the task takes."""

    status = 400
    error_type = "invalid_parameters"


class InvalidImage(GatewayError):
    """The image cannot be decoded, or is larger than the gateway takes."""

    status = 400
    error_type = "invalid_image"


class UnknownTask(GatewayError):
    """The URL names a task other than image-classification."""

    status = 400
    error_type = "unknown_task"


class Unauthorized(GatewayError):
    """The request carries no token that is in `GATEWAY_TOKENS_FILE`."""

    status = 401
    error_type = "unauthorized"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # huggingface_hub shows the second one to its user.
        self.headers = {
            "www-authenticate": 'Bearer realm="Authentication required", charset="UTF-8"',
            "x-error-message": message,
        }


class ModelNotFound(GatewayError):
    """The model repository has no model of that id."""

    status = 404
    error_type = "model_not_found"

    def __init__(self, model_id: str) -> None:
        # First the hosted API's own words, which clients look for.
        super().__init__(
            f"Model {model_id[:_ECHO_CHARS]} does not exist; GET /info lists the loaded models"
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
    """The body is larger than the gateway reads."""

    status = 413
    error_type = "payload_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The request body is larger than {limit_bytes} bytes, the limit here"
            " (GATEWAY_MAX_BODY_BYTES); send a smaller image"
        )


class UnsupportedContentEncoding(GatewayError):
    """The body's `Content-Encoding` is none that the gateway decodes."""

    status = 415
    error_type = "unsupported_content_encoding"

    def __init__(self, coding: str, supported: Sequence[str]) -> None:
        names = ", ".join(supported)
        super().__init__(
            f"The Content-Encoding {coding[:_ECHO_CHARS]!r} is not supported; send the body with"
            f" one of {names}, or without"
        )
        # What the client may send instead (RFC 9110 §15.5.16).
        self.headers = {"accept-encoding": names}


class Overloaded(GatewayError):
    """As many requests are in flight as the gateway admits."""

    status = 429
    error_type = "overloaded"
    retry_after_s = 1


class ClientClosedRequest(GatewayError):
    """The client closed the connection before its body was complete."""

    status = 499
    error_type = "client_closed_request"


class InferenceFailed(GatewayError):
    """Triton failed on a request that the gateway built."""

    status = 500
    error_type = "inference_failed"


class InvalidModel(GatewayError):
    """Triton serves the model, but it was not exported by Vitriton or is damaged."""

    status = 500
    error_type = "invalid_model"


class ModelLoadFailed(GatewayError):
    """Triton tried to load the model and could not; the message has its reason."""

    status = 500
    error_type = "model_load_failed"


class ModelLoading(GatewayError):
    """The model is being loaded; `estimated_time` is what that will still take, in seconds."""

    status = 503
    error_type = "model_loading"
    retry_after_s = 1

    def __init__(self, model_id: str, remaining_s: float) -> None:
        super().__init__(f"Model {model_id} is currently loading")
        self.extra = {"estimated_time": remaining_s}
        self.retry_after_s = max(1, math.ceil(remaining_s))


class ModelTooBusy(GatewayError):
    """The model was not loaded in all the time that the caller was ready to wait."""

    status = 503
    error_type = "model_too_busy"
    retry_after_s = 1

    def __init__(self, waited_s: float) -> None:
        super().__init__(
            f"Model too busy, unable to get response in less than {waited_s:g} second(s)"
        )


class ModelNotReady(GatewayError):
    """The model cannot answer yet, or no longer."""

    status = 503
    error_type = "model_not_ready"
    retry_after_s = 1


class TritonUnreachable(GatewayError):
    """No connection to Triton."""

    status = 503
    error_type = "triton_unreachable"
    retry_after_s = 1


class DeadlineExceeded(GatewayError):
    """The answer did not come within the request's time."""

    status = 504
    error_type = "deadline_exceeded"
