"""Allow browsers to call the API from pages of every origin."""

from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from gateway.http.rendering import json_answer, json_error
from gateway.http.table import RESPONSE_HEADERS

_PREFLIGHT_MAX_AGE_S: Final = 86_400


class Cors(CORSMiddleware):
    """Starlette's middleware, with JSON where Starlette answers a preflight in plain text."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            app,
            allow_origins=["*"],
            allow_methods=["*"],
            allow_headers=["*"],
            # Pages on the internet may call a gateway in the private network of their reader.
            allow_private_network=True,
            expose_headers=[header.name for header in RESPONSE_HEADERS],
            max_age=_PREFLIGHT_MAX_AGE_S,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight: headers that allow the request, or an error in JSON."""
        plain = super().preflight_response(request_headers)
        allowed = {
            name: value for name, value in plain.headers.items() if not name.startswith("content-")
        }
        if plain.status_code < 400:
            return json_answer({"ok": "ok"}, allowed)
        reason = bytes(plain.body).decode()
        return json_error(
            f"{reason}; this API is called with GET and POST",
            plain.status_code,
            "disallowed_cors",
            allowed,
        )
