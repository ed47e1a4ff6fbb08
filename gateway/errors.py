"""Every way a request can fail, with the HTTP status it answers.

    GatewayError
    ├── MalformedRequest     400  the body is not what the API takes
    ├── InvalidParameters    400  `parameters` holds something the task does not know
    ├── InvalidImage         400  the bytes are no image, or one past a limit
    ├── ModelNotFound        404  Triton does not serve that model
    ├── RequestTimeout       408  the body did not arrive in time
    ├── PayloadTooLarge      413  the body is past `GATEWAY_MAX_BODY_BYTES`
    ├── Overloaded           429  `GATEWAY_MAX_INFLIGHT` requests are being worked on
    ├── ClientClosedRequest  499  the client went away; nobody reads the answer
    ├── InferenceFailed      500  Triton took the request and failed
    ├── InvalidModel         500  the model's `config.pbtxt` lacks a usable contract
    ├── ModelNotReady        503  Triton is up, the model is not
    ├── TritonUnreachable    503  Triton does not answer
    └── DeadlineExceeded     504  `GATEWAY_REQUEST_TIMEOUT_S` ran out after the body was read

The message becomes the `error` of the JSON answer, so it never holds a foreign exception's text.
"""

from typing import ClassVar


class GatewayError(Exception):
    """A failure with a status and a message that the caller may read."""

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "internal"
    retry_after_s: ClassVar[int | None] = None


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


class ModelNotFound(GatewayError):
    """Triton serves no model of that id."""

    status = 404
    error_type = "model_not_found"

    def __init__(self, model_id: str) -> None:
        super().__init__(f"Model {model_id} does not exist")


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
