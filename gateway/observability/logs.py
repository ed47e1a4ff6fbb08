"""Write log lines to standard error, with one logger for the whole gateway."""

import logging
from typing import Any

log = logging.getLogger("gateway")


def configure_logging(level: str) -> None:
    """Write lines of at least `level` to standard error."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # The format has no names of threads and processes, so they need not be looked up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def server_logging() -> dict[str, Any]:
    """Granian's logging configuration, which writes its warnings with all other lines."""
    return {"formatters": {}, "handlers": {}, "loggers": {"_granian": {"propagate": True}}}
