"""A gateway of a test's own, `vitriton gateway`, in front of a Triton that runs already."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import httpx

from tests.stack import STOP_TIMEOUT_S, VITRITON

_LISTENING = re.compile(r"listening on \('127\.0\.0\.1', (\d+)\)")


class RunningGateway(httpx.Client):
    """Its client, with what it has logged."""

    def __init__(self, port: str, log: list[str], pid: int) -> None:
        super().__init__(base_url=f"http://127.0.0.1:{port}", timeout=120)
        self.log = log
        self.pid = pid


@contextmanager
def gateway(triton_url: str, **settings: str) -> Iterator[RunningGateway]:
    """A gateway on a free port, which it says itself."""
    with subprocess.Popen(
        [*VITRITON, "gateway"],
        env=os.environ | {"GATEWAY_TRITON_URL": triton_url, "GATEWAY_PORT": "0"} | settings,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        log: list[str] = []
        reader = threading.Thread(target=_read, args=(process.stderr, log))
        try:
            match = next(m for m in map(_LISTENING.search, process.stderr) if m)
            reader.start()
            with RunningGateway(match[1], log, process.pid) as client:
                yield client
        finally:
            process.terminate()
            # uvicorn finishes its requests and then ends by the signal it was sent; where it
            # watches over several processes it ends when they have.
            assert process.wait(STOP_TIMEOUT_S) in {-signal.SIGTERM, 0}
            reader.join()


def _read(output: IO[str], log: list[str]) -> None:
    log.extend(output)
