"""uvicorn's HTTP protocol, with JSON where uvicorn itself would answer in plain text."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.schemas import render_error

_HEAD: Final = (
    "HTTP/1.1 400 Bad Request\r\n"
    "content-type: application/json\r\n"
    "content-length: {length}\r\n"
    "connection: close\r\n\r\n"
)


class JsonErrorsProtocol(HttpToolsProtocol):
    """What is no HTTP at all gets a JSON object too."""

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that cannot be parsed, and close the connection."""
        body = render_error(msg, "malformed_request", {})
        self.transport.write(_HEAD.format(length=len(body)).encode() + body)
        self.transport.close()
