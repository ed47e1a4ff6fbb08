"""The description of the HTTP surface, at `/openapi.json`, and its page at `/docs`."""

import inspect
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from gateway import __version__, errors
from gateway.errors import GatewayError
from gateway.http.rendering import json_response
from gateway.http.state import State

Json = dict[str, Any]

_SWAGGER_UI: Final = Path(__file__).parent / "swagger_ui"
_ASSETS: Final = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "start.js"})
# The page runs no script but its own files, and asks no other host. Swagger UI styles elements.
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
                "description": "Seconds a model's load will still take; with `model_loading`.",
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
                "description": "Unset, what the model's problem type asks for.",
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
                "description": "Base64 of an image, or a list of such; data URIs are fine.",
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
    "description": "An image as it is, whatever its type is called, or JSON, or a form.",
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


def _flag(name: str, default: str, description: str) -> Json:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string", "default": default},
    }


_CLASSIFY_PARAMETERS: Final[list[Json]] = [
    {
        "name": "top_k",
        "in": "query",
        "description": "For a raw body; `parameters` of a JSON body win as a whole.",
        "schema": {"type": "integer", "minimum": 1, "default": 5},
    },
    {
        "name": "function_to_apply",
        "in": "query",
        "schema": {"type": "string", "enum": ["sigmoid", "softmax", "none"]},
    },
    _flag("x-use-cache", "true", "`false`: do not answer from the cache."),
    _flag("x-wait-for-model", "false", "`true`: hold the request until the model is loaded."),
    _flag("x-load-model", "true", "`0`: do not load a model that is not loaded."),
]
# Overrides the security of the whole document: no token is asked for.
_OPEN: Final[Json] = {"security": []}
_RESPONSE_HEADERS: Final[Json] = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "x-compute-type": "`cpu`, `gpu`, or `cache` if nothing was inferred.",
        "x-compute-time": "Seconds, three decimals.",
        "x-queue-time": "Milliseconds before the work began.",
        "x-inference-time": "Milliseconds in Triton.",
        "x-total-time": "Milliseconds from the request's headers to the answer.",
        "x-sha": "Commit of the checkpoint, or the first 40 digits of its SHA-256.",
        "x-request-id": "The caller's `x-request-id` or `x-amzn-trace-id`, or a new one.",
    }.items()
}


@cache
def _document() -> bytes:
    classify_paths = {
        "/models/{model_id}": ["model_id"],
        "/hf-inference/models/{model_id}": ["model_id"],
        "/pipeline/{task}/{model_id}": ["task", "model_id"],
        "/models/{model_id}/pipeline/{task}": ["model_id", "task"],
        "/": [],
    }
    paths: Json = {path: {"post": _classify(names)} for path, names in classify_paths.items()}
    paths["/"]["get"] = _get("Somebody is here", []) | _OPEN
    for path in ("/models/{model_id}", "/hf-inference/models/{model_id}"):
        paths[path]["get"] = _get("Facts of a loaded model", ["model_id"])
    for path, summary, names in (
        ("/models/{model_id}/info", "Facts of a loaded model", ["model_id"]),
        ("/info", "The version and the loaded models", []),
        ("/status/{model_id}", "State of a model, as huggingface_hub asks it", ["model_id"]),
    ):
        paths[path] = {"get": _get(summary, names)}
    for path, summary, names in (
        ("/models/{model_id}/health", "Whether a model is loaded", ["model_id"]),
        ("/health", "Whether the default model is loaded", []),
        ("/api/models/{model_id}", "Who serves a model, as the hub says it", ["model_id"]),
    ):
        paths[path] = {"get": _get(summary, names) | _OPEN}
    for path, summary in (
        ("/models", "Facts of the loaded models"),
        ("/api/models", "The loaded models, as the hub lists models"),
    ):
        paths[path] = {"get": _get(summary, [], answer="array")}
    paths["/framework/{framework}"] = {
        "get": _get("Loaded models of a framework", ["framework"], answer="array")
    }
    document = {
        "openapi": "3.0.3",
        "info": {
            "title": "Vitriton",
            "version": __version__,
            "description": "Image classification with the wire format of Hugging Face's Inference"
            " API. The `/` in a model id is sent as it is; trailing slashes do no harm.",
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


def _classify(path_parameters: list[str]) -> Json:
    return {
        "summary": "Classify an image",
        "parameters": [*map(_in_path, path_parameters), *_CLASSIFY_PARAMETERS],
        "requestBody": _BODY,
        "responses": {
            "200": {
                "description": "Labels and scores, best first; for a list, one such list an image.",
                "headers": _RESPONSE_HEADERS,
                "content": {
                    "application/json": {
                        "schema": {
                            "anyOf": [_PREDICTIONS, {"type": "array", "items": _PREDICTIONS}]
                        }
                    }
                },
            }
        }
        | _error_responses(),
    }


def _get(summary: str, path_parameters: list[str], answer: str = "object") -> Json:
    content = {"application/json": {"schema": {"type": answer}}}
    return {
        "summary": summary,
        "parameters": [*map(_in_path, path_parameters)],
        "responses": {"200": {"description": summary, "content": content}} | _error_responses(),
    }


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": _NAME}


@cache
def _error_responses() -> Json:
    """One response for each status that `gateway.errors` has."""
    classes = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, GatewayError)
    ]
    described: dict[str, list[str]] = {"405": ["The path takes another method."]}
    for cls in sorted(classes, key=lambda c: c.error_type):
        described.setdefault(str(cls.status), []).append(f"`{cls.error_type}`: {cls.__doc__}")
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        status: {"description": "\n".join(lines), "content": content}
        for status, lines in sorted(described.items())
    }


async def openapi(_: Request[State]) -> Response:
    """`GET /openapi.json`."""
    return json_response(_document())


async def docs(_: Request[State]) -> Response:
    """`GET /docs`: Swagger UI, vendored; no browser fetches anything from elsewhere."""
    return FileResponse(_SWAGGER_UI / "index.html", headers=_PAGE_HEADERS)


async def docs_asset(request: Request[State]) -> Response:
    """`GET /docs/{asset}`: the files that the page needs."""
    asset = request.path_params["asset"]
    if asset not in _ASSETS:
        raise HTTPException(404)
    return FileResponse(_SWAGGER_UI / asset)
