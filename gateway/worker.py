"""Make the application for an ASGI server, with settings from the environment."""

import multiprocessing
import os

from starlette.types import ASGIApp

from gateway.app import create_app
from gateway.observability.logs import configure_logging
from gateway.runtime.process import (
    end_with_parent,
    exclude_startup_objects_from_collection,
    keep_freed_memory,
)
from gateway.settings import load_settings


def asgi_app() -> ASGIApp:
    """The application for any ASGI server: `uvicorn --factory gateway.worker:asgi_app`.

    The process keeps the settings that the server gives it; `worker_app` sets our own.

    Raises:
        InvalidSettings: A setting cannot be used.
        TokensError: The file of tokens cannot be used.
    """
    settings = load_settings()
    configure_logging(settings.log_level)
    return create_app(settings)


def worker_app() -> ASGIApp:
    """The application for a worker of `gateway.server`, which ends when its parent ends."""
    end_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        # The parent ended before the kernel was asked to signal its end.
        raise SystemExit(1)
    # Before the threads that decode images start.
    keep_freed_memory()
    app = asgi_app()
    exclude_startup_objects_from_collection()
    return app
