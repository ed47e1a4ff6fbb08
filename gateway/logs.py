"""Log lines: one logger, to standard error."""

import logging

log = logging.getLogger("gateway")


def configure_logging(level: str) -> None:
    """Write lines of at least `level` to standard error."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # Who calls is known from the request; nobody reads threads' and processes' names.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # uvicorn tells of its own start and stop in four lines each; `app` does in one.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, log.getEffectiveLevel()))
