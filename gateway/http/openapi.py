"""Describe the HTTP API in OpenAPI at `/openapi.json`, and show it as a page at `/docs`."""

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from gateway import __version__, errors
from gateway.errors import GatewayError
from gateway.http.state import State
from gateway.http.table import (
    ENDPOINTS,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    ROUTER_PREFIX,
    Endpoint,
)

Json = dict[str, Any]

_SWAGGER_UI: Final = Path(__file__).parent / "swagger_ui"
_ASSETS: Final = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "start.js"})
# The page runs only its own script files and contacts no other host. Swagger UI sets inline styles.
_PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; connect-src 'self';"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; frame-ancestors 'none'"
}

_NAME: Final[Json] = {"type": "string", "minLength": 1}
_PREDICTIONS: Final[Json] = {
    "type": "array",
    "items": {"$ref": "#/components/schemas/Prediction"},
}
_SCHEMAS: Final[Json] = {
    "Prediction": {
        "type": "object",
        "required": ["label", "score"],
        "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
    },
    "Error": {
        "type": "object",
        "required": ["error", "error_type"],
        "properties": {
            "error": {"type": "string"},
            "error_type": {"type": "string"},
            "estimated_time": {
                "type": "number",
                "description": "Seconds until the model is loaded; only with `model_loading`.",
            },
        },
    },
    "Parameters": {
        "type": "object",
        "nullable": True,
        "additionalProperties": False,
        "properties": {
            "function_to_apply": {
                "type": "string",
                "nullable": True,
                "enum": ["sigmoid", "softmax", "none", None],
                "description": "If it is not set, the model's problem type decides.",
            },
            "top_k": {"type": "integer", "nullable": True, "minimum": 1, "default": 5},
        },
    },
    "Options": {
        "type": "object",
        "description": "The same as the headers `x-use-cache`, `x-wait-for-model`, `x-load-model`.",
        "properties": {
            "use_cache": {"type": "boolean", "default": True},
            "wait_for_model": {"type": "boolean", "default": False},
            "load_model": {"type": "boolean", "default": True},
        },
    },
    "ClassificationRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": {
                "description": "Base64 of an image, or a list of these. Data URIs are accepted.",
                "oneOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}},
                ],
            },
            "parameters": {"$ref": "#/components/schemas/Parameters"},
            "options": {"$ref": "#/components/schemas/Options"},
        },
    },
}
_BINARY: Final[Json] = {"schema": {"type": "string", "format": "binary"}}
_BODY: Final[Json] = {
    "required": True,
    "description": "The bytes of an image with any `Content-Type`, or JSON, or a form.",
    "content": {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "application/json": {"schema": {"$ref": "#/components/schemas/ClassificationRequest"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "parameters": {"$ref": "#/components/schemas/Parameters"},
                    "options": {"$ref": "#/components/schemas/Options"},
                },
            },
            "encoding": {
                "parameters": {"contentType": "application/json"},
                "options": {"contentType": "application/json"},
            },
        },
    },
}


_QUERY_PARAMETERS: Final[list[Json]] = [
    {
        "name": "top_k",
        "in": "query",
        "description": "For a raw body. `parameters` of a JSON body replace the query as a whole.",
        "schema": {"type": "integer", "minimum": 1, "default": 5},
    },
    {
        "name": "function_to_apply",
        "in": "query",
        "schema": {"type": "string", "enum": ["sigmoid", "softmax", "none"]},
    },
]
# OpenAPI describes tokens under `security`; body codings belong to HTTP.
_UNDESCRIBED_HEADERS: Final = frozenset({"authorization", "content-encoding"})
_SUCCESS: Final[dict[str, Json]] = {
    "predictions": {"anyOf": [_PREDICTIONS, {"type": "array", "items": _PREDICTIONS}]},
    "object": {"type": "object"},
    "array": {"type": "array"},
}


@cache
def _document() -> bytes:
    paths: dict[str, Json] = {}
    for endpoint in ENDPOINTS:
        if endpoint.answer == "other":
            continue
        for path in _described_paths(endpoint):
            paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    document = {
        "openapi": "3.0.3",
        "info": {
            "title": "Vitriton",
            "version": __version__,
            "description": "Image classification with the wire format of Hugging Face's Inference"
            " API. The `/` in a model id is not escaped. Trailing slashes are ignored. Every path"
            f" may have `{ROUTER_PREFIX}` before it.",
            "license": {"name": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }
    return orjson.dumps(document)


def _described_paths(endpoint: Endpoint) -> tuple[str, ...]:
    """The endpoint's path. A model's URL is also described with the router's prefix."""
    if endpoint.path == "/models/{model_id}":
        return endpoint.path, f"{ROUTER_PREFIX}{endpoint.path}"
    return (endpoint.path,)


def _operation(endpoint: Endpoint) -> Json:
    is_classification = endpoint.answer == "predictions"
    schema = _SUCCESS[endpoint.answer]
    where = {"all", "classification"} if is_classification else {"all"}
    operation: Json = {
        "summary": endpoint.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _NAME}
            for name in re.findall(r"{(\w+)}", endpoint.path)
        ],
        "responses": {
            "200": {
                "description": endpoint.summary,
                "headers": _response_headers(where),
                "content": {"application/json": {"schema": schema}},
            }
        }
        | _error_responses(),
    }
    if is_classification:
        operation["parameters"] += [*_QUERY_PARAMETERS, *_header_parameters()]
        operation["requestBody"] = _BODY
    if endpoint.is_open:
        # This overrides the security of the whole document: the endpoint needs no token.
        operation["security"] = []
    return operation


def _header_parameters() -> list[Json]:
    return [
        {
            "name": header.name,
            "in": "header",
            "description": header.meaning,
            "schema": {"type": "string"}
            | ({} if header.default is None else {"default": header.default}),
        }
        for header in REQUEST_HEADERS
        if header.name not in _UNDESCRIBED_HEADERS
    ]


def _response_headers(where: set[str]) -> Json:
    return {
        header.name: {"description": header.meaning, "schema": {"type": "string"}}
        for header in RESPONSE_HEADERS
        if header.where in where
    }


@cache
def _error_responses() -> Json:
    """One response for each status of the errors in `gateway.errors`."""
    classes = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, GatewayError)
    ]
    described: dict[str, list[str]] = {"405": ["The path takes another method."]}
    for cls in sorted(classes, key=lambda c: c.error_type):
        described.setdefault(str(cls.status), []).append(f"`{cls.error_type}`: {cls.__doc__}")
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    headers = _response_headers({"all", "error"})
    return {
        status: {"description": "\n".join(lines), "headers": headers, "content": content}
        for status, lines in sorted(described.items())
    }


async def openapi(_: Request[State]) -> Response:
    """`GET /openapi.json`."""
    return Response(_document(), media_type="application/json")


async def docs(_: Request[State]) -> Response:
    """`GET /docs`: Swagger UI from files of this package; the browser contacts no other host."""
    return FileResponse(_SWAGGER_UI / "index.html", headers=_PAGE_HEADERS)


async def docs_asset(request: Request[State]) -> Response:
    """`GET /docs/{asset}`: the files that the page needs."""
    asset = request.path_params["asset"]
    if asset not in _ASSETS:
        raise HTTPException(404)
    return FileResponse(_SWAGGER_UI / asset)
