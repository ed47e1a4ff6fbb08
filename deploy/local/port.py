"""Reserve the HTTP port before any other work, so that a taken port is reported at once."""

import errno
import socket
from typing import Final

from deploy.local.errors import LocalError
from gateway.runtime.ports import reserve_port

_OTHER_PORT: Final = "choose another with --port (PORT=… with make), or 0 for a free one"
_WAYS_OUT: Final = {
    errno.EADDRINUSE: f"stop what serves there, or {_OTHER_PORT}",
    errno.EACCES: f"ports below 1024 take root; {_OTHER_PORT}",
}
_OTHER_HOST: Final = "set GATEWAY_HOST to an address of this machine, or 0.0.0.0 for all of them"


def open_port(host: str, port: int) -> socket.socket:
    """A socket that reserves the port for the gateway.

    Raises:
        LocalError: It cannot be opened, with the reason and the way out.
    """
    try:
        return reserve_port(host, port)
    except OSError as exc:
        way_out = _WAYS_OUT.get(exc.errno or 0, _OTHER_HOST)
        raise LocalError(
            f"port {port} on {host} cannot be opened: {exc.strerror or exc}; {way_out}"
        ) from exc
    except UnicodeError as exc:
        raise LocalError(f"{host!r} cannot be the name of a host; {_OTHER_HOST}") from exc
