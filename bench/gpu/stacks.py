"""Keep one stack running for the steps that need it."""

import asyncio
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from time import monotonic
from typing import Final

import psutil
from tritonclient.grpc import model_config_pb2 as pb

from bench.gpu.plan import MODEL, Mode, Plan
from bench.models import copy_entry, graph_of, make_null
from bench.servers import Server, vitriton
from deploy.local.triton_server import TRITON_LOG
from gateway.modelspec import triton_model_name
from gateway.triton.client import TritonClient

_LOAD_TIMEOUT_S: Final = 60.0


class Stacks:
    """At most one stack of `vitriton serve` at a time; it ends with the block."""

    def __init__(self, plan: Plan, repository: Path, work: Path) -> None:
        self._plan = plan
        self._repository = repository
        self._work = work
        self._stack = ExitStack()
        self._running: tuple[Mode, Server] | None = None
        self.ready_s: dict[Mode, float] = {}
        """Seconds from the command to the first start's ready line."""

    def get(self, mode: Mode) -> Server:
        """The stack that serves the model in a mode, started unless it runs.

        Raises:
            RuntimeError: The model is not there; `vitriton serve` would export it once more.
        """
        if not graph_of(self._repository, MODEL).exists():
            raise RuntimeError("there is no model to serve: the export failed")
        if self._running is not None:
            running, server = self._running
            if running == mode and all(map(psutil.pid_exists, server.pids)):
                return server
        self.close()
        start = monotonic()
        server = self._stack.enter_context(self._start(self._plan.profiles[mode]))
        self.ready_s.setdefault(mode, monotonic() - start)
        self._running = mode, server
        return server

    def _start(self, profile: str) -> AbstractContextManager[Server]:
        work = self._work
        # Triton's log is in the temporary folder.
        return vitriton([MODEL], self._repository, work, profile=profile, TMPDIR=str(work))

    def log_lines(self) -> list[str]:
        """The lines of Triton's log: of the stack that runs, or of the last that failed."""
        logs = sorted(self._work.rglob(TRITON_LOG), key=lambda log: log.stat().st_mtime)
        return logs[-1].read_text(errors="replace").splitlines() if logs else []

    def lines_about(self, model_id: str) -> list[str]:
        """What our backend has logged about a model: decoders and CUDA graphs of each instance."""
        name = f"{triton_model_name(model_id)}, version "
        return [line[line.index(name) :].rstrip('"') for line in self.log_lines() if name in line]

    def close(self) -> None:
        """Stop the stack, so that the machine is free."""
        self._running = None
        self._stack.close()

    def add_null(self, model_id: str, server: Server) -> None:
        """Have Triton load a model that returns constants."""
        copy_entry(self._repository, MODEL, model_id)
        make_null(self._repository, model_id)
        _load(server, model_id)

    def add_instances(self, model_id: str, server: Server, instances: int) -> None:
        """Have Triton load the model with another number of instances."""
        copy_entry(self._repository, MODEL, model_id, lambda c: _set_instances(c, instances))
        _load(server, model_id)


def _set_instances(config: pb.ModelConfig, instances: int) -> None:
    for group in config.instance_group:
        group.count = instances


def _load(server: Server, model_id: str) -> None:
    async def load() -> None:
        async with TritonClient(str(server.triton_grpc_url)) as triton:
            await triton.load_model(model_id, _LOAD_TIMEOUT_S)

    asyncio.run(load())
