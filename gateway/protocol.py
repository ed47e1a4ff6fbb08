"""uvicorn's HTTP protocol: JSON where it would answer in plain text, an answer in one write.

It tells of a caller who has gone without being asked.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.presence import EXTENSION, Presence
from gateway.schemas import render_error

_HEAD: Final = (
    "HTTP/1.1 400 Bad Request\r\n"
    "content-type: application/json\r\n"
    "content-length: {length}\r\n"
    "connection: close\r\n\r\n"
)
# Of a body, before reading pauses until the application has taken it.
_HELD_BYTES: Final = 128 * 1024


class JsonErrorsProtocol(HttpToolsProtocol):
    """What is no HTTP at all gets a JSON object too."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Have all that is written of an answer leave together."""
        joined: Any = JoinedWrites(transport, self.loop)
        self._presence = Presence()
        super().connection_made(joined)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this caller."""
        super().connection_lost(exc)
        self._presence.end()

    def on_message_begin(self) -> None:
        """Let the request's application know the connection."""
        super().on_message_begin()
        extensions: Any = {EXTENSION: self._presence}
        self.scope["extensions"] = extensions

    def on_body(self, body: bytes) -> None:
        """Hand on what came in one piece as it is.

        uvicorn would copy it into a buffer and out again, and pause at 64 KiB, less than a
        photograph has.
        """
        cycle: Any = self.cycle
        if cycle.response_complete:
            return
        cycle.body = cycle.body + body if cycle.body else body
        if len(cycle.body) > _HELD_BYTES:
            self.flow.pause_reading()
        cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that cannot be parsed, and close the connection."""
        body = render_error(msg, "malformed_request", {})
        self.transport.write(_HEAD.format(length=len(body)).encode() + body)
        self.transport.close()


class JoinedWrites:
    """A transport that holds the first of two writes back until the second, or the next turn.

    uvicorn writes the head and the body of an answer one by one, and each would be a call into the
    kernel, a packet, and a wake of the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold data back, or send what is held with it."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        elif data:
            self._held = data
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what is held, if there is still somebody to send it to."""
        if self._held and not self._transport.is_closing():
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        """Close once all is sent."""
        self.flush()
        self._transport.close()
