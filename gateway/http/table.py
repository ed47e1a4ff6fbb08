"""The HTTP surface as data: every endpoint, and every header that a request or an answer has.

Routes, CORS, OpenAPI and the tables in docs/api.md are made from it.
"""

from typing import Final, Literal, NamedTuple

TASK: Final = "image-classification"
ROUTER_PREFIX: Final = "/hf-inference"
"""Hugging Face's router puts it before every path."""


class Endpoint(NamedTuple):
    """A method and a path."""

    method: Literal["GET", "POST"]
    path: str
    """In braces what varies; a model id holds slashes."""
    handler: str
    """Name of the function that answers."""
    summary: str
    answer: Literal["predictions", "object", "array", "other"] = "object"
    """What a 200 holds: JSON of that kind, or something other than JSON."""
    is_open: bool = False
    """Whether a caller needs no token where the gateway has a file of tokens."""


_CLASSIFY: Final = "Labels and scores of an image"
_CLASSIFY_DEFAULT: Final = "Labels and scores of an image, by the default model"

# The first endpoint that matches answers.
ENDPOINTS: Final = (
    *(
        Endpoint("POST", path, "classify", _CLASSIFY, "predictions")
        for path in (
            "/models/{model_id}/pipeline/{task}",
            "/models/{model_id}",
            "/pipeline/{task}/{model_id}",
        )
    ),
    *(
        Endpoint("POST", path, "classify", _CLASSIFY_DEFAULT, "predictions")
        # As a dedicated endpoint, HF's toolkit and SageMaker have it.
        for path in ("/pipeline/{task}", "/", "/predict", "/invocations")
    ),
    Endpoint(
        "GET",
        "/models/{model_id}/health",
        "model_health",
        "200 when the model is loaded, else 503",
        is_open=True,
    ),
    Endpoint("GET", "/models/{model_id}/info", "model_info", "Facts of a loaded model"),
    Endpoint("GET", "/models/{model_id}", "model_info", "Facts of a loaded model"),
    Endpoint("GET", "/models", "models", "Facts of the loaded models", "array"),
    Endpoint("GET", "/info", "info", "The version, and facts of the loaded models"),
    Endpoint(
        "GET", "/status/{model_id}", "status", "State of a model, for `get_model_status` of clients"
    ),
    Endpoint(
        "GET",
        "/framework/{framework}",
        "framework",
        "Loaded models, for `list_deployed_models` of clients",
        "array",
    ),
    Endpoint("GET", "/api/models", "hub_models", "Loaded models, as the hub lists them", "array"),
    # Open as on the hub. The newest clients request it without their token.
    Endpoint(
        "GET",
        "/api/models/{model_id}",
        "hub_model",
        "A model as the hub describes it, for clients with `HF_ENDPOINT` set to the gateway",
        is_open=True,
    ),
    Endpoint("GET", "/", "root", "The service answers", is_open=True),
    Endpoint(
        "GET", "/health", "health", "200 when the default model is loaded, else 503", is_open=True
    ),
    Endpoint(
        "GET", "/ping", "health", "200 when the default model is loaded, else 503", is_open=True
    ),
    Endpoint(
        "GET",
        "/metrics",
        "metrics",
        "Prometheus text or OpenMetrics, as `Accept` asks",
        "other",
        is_open=True,
    ),
    Endpoint("GET", "/openapi.json", "openapi", "The OpenAPI description", is_open=True),
    Endpoint(
        "GET", "/docs", "docs", "The OpenAPI description as a page to try", "other", is_open=True
    ),
    Endpoint(
        "GET", "/docs/{asset}", "docs_asset", "A file of the page `/docs`", "other", is_open=True
    ),
)


class RequestHeader(NamedTuple):
    """A header that the gateway reads; `OPTION_HEADERS` of `parameters` parses the options."""

    name: str
    meaning: str
    option: str | None = None
    """The same in a body's `options`."""
    default: str | None = None


REQUEST_HEADERS: Final = (
    RequestHeader("authorization", "`Bearer TOKEN`, where the gateway has a file of tokens"),
    RequestHeader(
        "x-use-cache", "false: infer, and keep nothing in the cache", "use_cache", "true"
    ),
    RequestHeader(
        "x-wait-for-model",
        "true: hold the request until the model is loaded, `GATEWAY_WAIT_FOR_MODEL_MAX_S` at most",
        "wait_for_model",
        "false",
    ),
    RequestHeader(
        "x-load-model", "false: do not load a model that is not loaded", "load_model", "true"
    ),
    RequestHeader(
        "x-scale-up-timeout", "seconds to hold the request at most while the model is loaded"
    ),
    RequestHeader(
        "x-request-id", "comes back as `x-request-id`, and stands in the log; unset, a new id"
    ),
    RequestHeader("x-amzn-trace-id", "the same, where there is no `x-request-id`"),
    RequestHeader("content-encoding", "`gzip`, `deflate`, `br` or `zstd`; the body's coding"),
)


class ResponseHeader(NamedTuple):
    """A header of answers, beside those of HTTP itself. Browsers may read all of them."""

    name: str
    meaning: str
    where: Literal["classification", "error", "all"]


RESPONSE_HEADERS: Final = (
    ResponseHeader(
        "x-compute-type", "`cpu`, `gpu`, or `cache` if nothing was inferred", "classification"
    ),
    ResponseHeader("x-compute-time", "seconds, three decimals", "classification"),
    ResponseHeader("x-compute-images", "number of images", "classification"),
    ResponseHeader(
        "x-queue-time", "whole milliseconds of waiting for the model to load", "classification"
    ),
    ResponseHeader("x-inference-time", "whole milliseconds in Triton", "classification"),
    ResponseHeader("x-total-time", "whole milliseconds altogether", "classification"),
    ResponseHeader(
        "x-sha",
        "commit of the checkpoint, or the first 40 digits of its SHA-256",
        "classification",
    ),
    ResponseHeader("x-inference-id", "a new id of the answer", "classification"),
    ResponseHeader("x-request-id", "the caller's id of the request, or a new one", "all"),
    ResponseHeader("retry-after", "seconds until the request is worth repeating", "error"),
    ResponseHeader(
        "x-error-message", "the `error` of a 401, which huggingface_hub shows to its user", "error"
    ),
)
