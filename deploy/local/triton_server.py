"""Run the embedded Triton: its command line and environment, readiness, and clean-up."""

import asyncio
import contextlib
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.children import (
    descendants,
    result_unless_exited,
    running,
    wait_for_first_exit,
    wait_until_ready,
)
from deploy.local.embedded_triton import (
    EmbeddedTriton,
    assemble_backend_directory,
)
from deploy.local.errors import LocalError
from deploy.local.profile import Profile
from deploy.local.work_folder import (
    explain_temporary_errors,
    remove_shared_memory,
    shared_memory_prefix,
)
from gateway.errors import GatewayError
from gateway.runtime.processors import available_cpus
from gateway.triton.client import TritonClient

TRITON_LOG: Final = "triton.log"

_START_TIMEOUT_S: Final = 60.0
_LOAD_TIMEOUT_S: Final = 300.0
# Triton waits this long for requests in flight, then unloads its models.
_EXIT_TIMEOUT_S: Final = 10
_GRACE_S: Final = _EXIT_TIMEOUT_S + 10
_MIB: Final = 1024 * 1024
# A full batch of 224×224 pixels fits in without growing; Triton's default of 1 MiB grows often.
_SHM_REGION_BYTES: Final = 8 * _MIB
# Folder for Triton's `--backend-directory`, inside the work folder.
_BACKENDS: Final = "backends"
# Linux cuts process names to 15 characters.
_STUB_NAME: Final = "triton_python_b"


@dataclass(frozen=True, slots=True)
class RunningTriton:
    """A live server and its addresses on the loopback interface."""

    process: Process
    grpc_url: str
    metrics_url: str
    log: Path

    async def load(self, model_id: str) -> None:
        """Load a model of the repository and wait until it is ready.

        Raises:
            LocalError: With Triton's reason.
        """
        async with TritonClient(self.grpc_url) as client:
            try:
                loading = client.load_model(model_id, _LOAD_TIMEOUT_S)
                await result_unless_exited(loading, self.process, "Triton")
            except GatewayError as exc:
                raise LocalError(str(exc)) from exc

    async def wait_for_stub_exit(self) -> int:
        """Wait until the process of a model instance ends; Triton does not restart or report it."""
        return await wait_for_first_exit(descendants(self.process, _STUB_NAME))


@asynccontextmanager
async def running_triton(
    triton: EmbeddedTriton, repository: Path, work: Path, profile: Profile
) -> AsyncIterator[RunningTriton]:
    """Run Triton during the block; it has no model loaded at first.

    Args:
        triton: The wheel's parts.
        repository: The model repository, an absolute path.
        work: An empty folder for the backend directory and the log.
        profile: By which configuration the models are served.

    Raises:
        LocalError: Triton did not start.
    """
    with explain_temporary_errors(work):
        assemble_backend_directory(triton, work / _BACKENDS)
    grpc_port, metrics_port = free_ports(2)
    log = work / TRITON_LOG
    argv = [
        *_command_line(triton, repository, work, grpc_port, metrics_port),
        # Triton serves a model without this variant by its config.pbtxt.
        f"--model-config-name={profile.name}",
    ]
    try:
        async with running(argv, _environment(triton), grace_s=_GRACE_S, log=log) as process:
            server = RunningTriton(
                process, f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{metrics_port}/metrics", log
            )
            async with TritonClient(server.grpc_url) as client:
                await _wait_until_live(client, server)
            yield server
    finally:
        # Triton removes its shared memory itself unless it is killed.
        remove_shared_memory(work)


def _command_line(
    triton: EmbeddedTriton, repository: Path, work: Path, grpc_port: int, metrics_port: int
) -> list[str]:
    return [
        str(triton.tritonserver),
        f"--model-repository={repository}",
        f"--backend-directory={work / _BACKENDS}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--allow-http=false",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc_port}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={metrics_port}",
        f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(work)}",
        f"--backend-config=python,shm-default-byte-size={_SHM_REGION_BYTES}",
    ]


async def _wait_until_live(client: TritonClient, server: RunningTriton) -> None:
    try:
        await wait_until_ready(client.is_live, server.process, "Triton", _START_TIMEOUT_S)
    except LocalError as exc:
        last = await asyncio.to_thread(_last_line, server.log)
        raise LocalError(f"{exc}: {last}") from exc


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return lines[-1].strip()
    return "it wrote no log"


def _environment(triton: EmbeddedTriton) -> dict[str, str]:
    """Environment of Triton: ours, the wheel's libraries, and this interpreter first on `PATH`.

    The stub embeds a Python that ignores `PYTHONPATH`. It imports the packages of the first
    `python3` on `PATH`, which may be that of a virtual environment.
    """
    own = os.environ
    return {
        # torch counts the processors of the machine, not those that this process may use.
        "OMP_NUM_THREADS": str(available_cpus()),
        # A model's thread that waits for the others spins for up to milliseconds on a processor
        # that the gateway could use; libgomp does not know of other processes. With many fewer
        # turns the threads sleep between operators, and a virtual machine may wake them slowly:
        # docs/decisions/0009-instances-on-a-cpu.md.
        "GOMP_SPINCOUNT": "4000",
        # malloc would return the memory of each batch to the kernel, which maps and clears new
        # memory for the next batch: a fortieth of the model's time. 32 MiB is the most that malloc
        # accepts for the first variable.
        "MALLOC_MMAP_THRESHOLD_": str(32 * _MIB),
        "MALLOC_TRIM_THRESHOLD_": str(128 * _MIB),
        **own,
        "PATH": _joined([str(Path(sys.executable).parent), own.get("PATH", "")]),
        "LD_LIBRARY_PATH": _joined([*map(str, triton.libraries), own.get("LD_LIBRARY_PATH", "")]),
    }


def _joined(paths: Sequence[str]) -> str:
    return os.pathsep.join(path for path in paths if path)


def free_ports(count: int) -> list[int]:
    """Ports that are free now; Triton cannot inherit a socket that we have bound."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
