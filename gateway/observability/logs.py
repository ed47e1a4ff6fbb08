"""Log lines: one logger, to standard error."""

import logging
from typing import Any

log = logging.getLogger("gateway")


def configure_logging(level: str) -> None:
    """Write lines of at least `level` to standard error."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # Who calls is known from the request; nobody reads threads' and processes' names.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def server_logging() -> dict[str, Any]:
    """Granian's logging configuration: its warnings go where all other lines go."""
    return {"formatters": {}, "handlers": {}, "loggers": {"_granian": {"propagate": True}}}
