"""Run `vitriton gateway` for one test, in front of a Triton that runs already."""

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
    """A client of a running gateway, with the gateway's log and process id."""

    def __init__(self, port: str, log: list[str], process: subprocess.Popen[str]) -> None:
        super().__init__(base_url=f"http://127.0.0.1:{port}", timeout=120)
        self.log = log
        self.pid = process.pid
        self.expected_code = 0
        self._process = process

    def stop(self) -> None:
        """Ask the gateway to end; it finishes its requests first."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill the gateway's parent process."""
        self.expected_code = -signal.SIGKILL
        self._process.kill()


@contextmanager
def gateway(triton_url: str, **settings: str) -> Iterator[RunningGateway]:
    """Run a gateway on a free port, which its log names."""
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
            with RunningGateway(match[1], log, process) as client:
                yield client
                process.terminate()
                assert process.wait(STOP_TIMEOUT_S) == client.expected_code
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            reader.join()


def _read(output: IO[str], log: list[str]) -> None:
    log.extend(output)
