"""Run the service: read the settings, reserve the port, and start granian with its workers.

The parent process holds the port and watches the workers; each worker runs `gateway.worker`.
"""

import argparse
import math
import multiprocessing
import os
import resource
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from gateway.auth.tokens import TokensError, TokensFile
from gateway.observability.logs import configure_logging, log, server_logging
from gateway.observability.metrics import MULTIPROCESS_FOLDER
from gateway.runtime.ports import reserve_port
from gateway.settings import InvalidSettings, Settings, load_settings

_BACKLOG: Final = 2048
# Open files of a worker beside its clients' connections: libraries, Triton, the log.
_OTHER_FILES: Final = 128
# A worker that is told to stop is killed this long after the time limit of its requests.
_STOP_MARGIN_S: Final = 5
_CONNECT_TIMEOUT_S: Final = 1.0
_CONNECT_PAUSE_S: Final = 0.02


def main(argv: Sequence[str] | None = None) -> None:
    """The command `vitriton gateway`; exit code 2 for a setting that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="vitriton gateway",
        description="Run only the HTTP service, for a Triton that is running already.",
        epilog="Settings come from GATEWAY_* variables: docs/configuration.md lists them.",
    )
    parser.add_argument(
        "--fd", type=int, metavar="N", help="serve on the port that this inherited socket reserves"
    )
    options = parser.parse_args(argv)
    try:
        settings = load_settings()
        if settings.tokens_file is not None:
            TokensFile(settings.tokens_file)
    except InvalidSettings as exc:
        _exit_with_error(str(exc))
    except TokensError as exc:
        _exit_with_error(f"GATEWAY_TOKENS_FILE: {exc}")
    configure_logging(settings.log_level)
    try:
        reserved = (
            reserve_port(settings.host, settings.port)
            if options.fd is None
            else socket.socket(fileno=options.fd)
        )
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        _exit_with_error(
            f"port {settings.port} on {settings.host} cannot be opened: {reason};"
            " choose another with GATEWAY_PORT and GATEWAY_HOST"
        )
    with reserved, _shared_metrics(settings.worker_count):
        _serve(settings, reserved)


def _exit_with_error(reason: str) -> NoReturn:
    print(f"vitriton: error: {reason}", file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """A folder for the metrics files of several workers. One worker needs none."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="vitriton-metrics-") as folder:
        os.environ[MULTIPROCESS_FOLDER] = folder
        yield


def _serve(settings: Settings, reserved: socket.socket) -> None:
    host, port = reserved.getsockname()[:2]
    # A forked worker would inherit locks of threads that it does not have.
    multiprocessing.set_start_method("spawn")
    server = Granian(
        "gateway.worker:worker_app",
        host,
        port,
        interface=Interfaces.ASGI,
        factory=True,
        workers=settings.worker_count,
        respawn_failed_workers=True,
        workers_kill_timeout=math.ceil(settings.request_timeout_s) + _STOP_MARGIN_S,
        # The mode `auto` waits without a limit for the first byte, to tell HTTP/2 from HTTP/1.
        http=HTTPModes.http1,
        websockets=False,
        loop=Loops.uvloop,
        backlog=_BACKLOG,
        backpressure=_max_connections(),
        http1_settings=http_settings(settings),
        log_level=LogLevels.warning,
        log_dictconfig=server_logging(),
    )
    server.on_startup(lambda: _log_when_listening(host, port))
    server.serve()


def http_settings(settings: Settings) -> HTTP1Settings:
    """The server's time limit of a connection, for being idle and for sending a head."""
    return HTTP1Settings(header_read_timeout=round(settings.keep_alive_s * 1000))


def _max_connections() -> int:
    """Number of connections a worker keeps open. Others wait in the kernel's queue."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, files - _OTHER_FILES)


def _log_when_listening(host: str, port: int) -> None:
    """Log the address as soon as a worker accepts connections. A thread waits for that."""

    def wait() -> None:
        while not _accepts_connections(host, port):
            pause.wait(_CONNECT_PAUSE_S)
        log.info("listening on %s", (host, port))

    pause = threading.Event()
    threading.Thread(target=wait, daemon=True, name="listening").start()


def _accepts_connections(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
