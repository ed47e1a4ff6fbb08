"""Run the service: settings from the environment, uvicorn in front."""

import argparse
import math
import os
import socket
import sys
import tempfile
from collections.abc import Sequence

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from gateway.app import create_app
from gateway.logs import configure_logging, log
from gateway.metrics import MULTIPROCESS_FOLDER
from gateway.protocol import JsonErrorsProtocol
from gateway.settings import InvalidSettings, load_settings
from gateway.tokens import TokensError


def main(argv: Sequence[str] | None = None) -> None:
    """The command `vitriton gateway`; exit code 2 for a setting that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="vitriton gateway",
        description="Run the HTTP service alone, in front of a Triton that is running already.",
        epilog="Settings come from GATEWAY_* variables: docs/configuration.md lists them.",
    )
    parser.add_argument("--fd", type=int, metavar="N", help="serve on this inherited, bound socket")
    options = parser.parse_args(argv)
    try:
        settings = load_settings()
        app = create_app(settings)
    except InvalidSettings as exc:
        print(f"vitriton: error: {exc}", file=sys.stderr)
        raise SystemExit(2) from exc
    except TokensError as exc:
        print(f"vitriton: error: GATEWAY_TOKENS_FILE: {exc}", file=sys.stderr)
        raise SystemExit(2) from exc
    configure_logging(settings.log_level)
    config = uvicorn.Config(
        "gateway.server:worker_app" if settings.worker_count > 1 else app,
        factory=settings.worker_count > 1,
        workers=settings.worker_count,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=JsonErrorsProtocol,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        # No caller's address is used.
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.request_timeout_s),
    )
    # An inherited one asks the kernel what it is: uvicorn would take it for a Unix socket, whose
    # connections are not set TCP_NODELAY, and each answer would wait 40 ms for an acknowledgement.
    listener = config.bind_socket() if options.fd is None else socket.socket(fileno=options.fd)
    # Not left to uvicorn's start: whoever reads the next line may connect at once.
    listener.listen(config.backlog)
    log.info("listening on %s", listener.getsockname())
    if settings.worker_count == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    with tempfile.TemporaryDirectory(prefix="vitriton-metrics-") as folder:
        os.environ[MULTIPROCESS_FOLDER] = folder
        Multiprocess(config, sockets=[listener]).run()


def worker_app() -> ASGIApp:
    """The application of one of several processes, which start from nothing."""
    settings = load_settings()
    configure_logging(settings.log_level)
    return create_app(settings)
