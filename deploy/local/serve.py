"""`vitriton serve`: Triton and the gateway on this machine, started together and stopped together.

Read this first: `serve` is the whole life of the stack.
"""

import asyncio
import logging
import os
import shlex
import signal
import socket
import sys
import tempfile
import urllib.request
from asyncio.subprocess import Process
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.children import describe_exit, kill_session, running, wait_until_ready
from deploy.local.demo_folder import DEMO_FOLDER, DEMO_MODEL
from deploy.local.embedded_triton import EmbeddedTriton, find_embedded_triton
from deploy.local.errors import LocalError
from deploy.local.model_selection import ExportFailed, prepare_models
from deploy.local.port import open_port
from deploy.local.profile import (
    AUTO,
    CPU,
    HIDE_GPUS,
    Profile,
    choose_profile,
    configuration_of,
    profile_for_entries,
)
from deploy.local.triton_server import TRITON_LOG, RunningTriton, running_triton
from deploy.local.work_folder import work_folder
from gateway.modelspec import triton_model_name
from gateway.runtime.processors import available_cpus
from gateway.settings import load_settings

log = logging.getLogger("vitriton")

_GATEWAY_START_TIMEOUT_S: Final = 30.0
_GATEWAY_GRACE_S: Final = 10.0
_ASK_TIMEOUT_S: Final = 5.0
# Room for a hundred images of 224×224 pixels. Images that find no room go over gRPC.
_SHARED_MEMORY_BYTES: Final = 16 * 1024 * 1024
# Where Triton decodes the JPEGs, a gateway's process keeps little more than one processor busy, and
# Triton's own processes need the others.
_CPUS_PER_WORKER_WITHOUT_DECODING: Final = 2


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """What to serve, and where."""

    models: list[str]
    repository: Path
    precision: str = "auto"
    """Precision of the models that have to be exported."""
    port: int | None = None
    profile: str = AUTO
    """Name of the models' configuration; `auto` chooses by the machine."""


def serve(request: ServeRequest) -> None:
    """Serve until SIGTERM or Ctrl-C, then stop everything; a second signal kills it at once.

    Raises:
        LocalError: A part is missing, did not start, or ended unexpectedly.
        InvalidSettings: A `GATEWAY_*` variable cannot be used.
    """
    # These fail at once, before anything is trained, exported or started.
    triton = find_embedded_triton()
    profile = choose_profile(request.profile)
    if profile.name == CPU:
        # An export verifies a model, and chooses its precision, for the device that it sees.
        os.environ[HIDE_GPUS] = ""
    settings = load_settings()
    port = settings.port if request.port is None else request.port
    with open_port(settings.host, port) as listener, _work_folder() as work:
        asyncio.run(_serve(triton, request, profile, listener, work))


@contextmanager
def _work_folder() -> Iterator[Path]:
    """Yield a temporary folder; after a failure keep Triton's log and name it in the error."""
    with work_folder() as work:
        try:
            yield work
        except ExportFailed:
            raise
        except LocalError as exc:
            kept = _keep(work / TRITON_LOG)
            if kept is None:
                raise
            raise LocalError(f"{exc} (Triton's log: {kept})") from exc


def _keep(log_file: Path) -> Path | None:
    """Move a log out of the folder that will be removed; none if it cannot be moved."""
    if not log_file.exists():
        return None
    try:
        kept = Path(tempfile.mkdtemp(prefix="vitriton-log-")) / TRITON_LOG
        log_file.rename(kept)
    except OSError:
        return None
    return kept


async def _serve(
    embedded: EmbeddedTriton,
    request: ServeRequest,
    profile: Profile,
    listener: socket.socket,
    work: Path,
) -> None:
    repository = request.repository.resolve()
    children: list[Process] = []
    stopping = _cancel_on_signals(children)
    try:
        model_ids = await prepare_models(request.models, request.repository, request.precision)
        entries = [repository / triton_model_name(model_id) for model_id in model_ids]
        profile = profile_for_entries(profile, entries)
        log.info("starting Triton with configuration %s: %s", profile.name, profile.reason)
        _name_missing_configurations(entries, profile)
        async with running_triton(embedded, repository, work, profile) as triton:
            children.append(triton.process)
            for model_id in model_ids:
                log.info("loading %s", model_id)
                await triton.load(model_id)
            async with _running_gateway(triton, model_ids[0], listener, profile) as gateway:
                children.append(gateway)
                url = _url(listener)
                await wait_until_ready(
                    lambda: asyncio.to_thread(_is_healthy, url),
                    gateway,
                    "the gateway",
                    _GATEWAY_START_TIMEOUT_S,
                )
                _say_ready(url, model_ids, triton)
                await _wait_for_unexpected_exit(triton, gateway)
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
        log.info("stopped")


def _name_missing_configurations(entries: list[Path], profile: Profile) -> None:
    """Say which models Triton serves by their `config.pbtxt` instead."""
    for entry in entries:
        file = configuration_of(entry, profile)
        if not file.is_file():
            log.info("%s has no %s and is served by its config.pbtxt", entry.name, file.name)


def _cancel_on_signals(children: list[Process]) -> asyncio.Event:
    """Cancel the current task at the first SIGINT or SIGTERM, kill the children at the second."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    stopping = asyncio.Event()

    def stop() -> None:
        if not stopping.is_set() and task is not None:
            stopping.set()
            log.info("stopping")
            task.cancel()
            return
        for child in children:
            kill_session(child)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopping


def _running_gateway(
    triton: RunningTriton, default_model: str, listener: socket.socket, profile: Profile
) -> AbstractAsyncContextManager[Process]:
    host, port = listener.getsockname()[:2]
    workers = max(1, available_cpus() // _CPUS_PER_WORKER_WITHOUT_DECODING)
    env = {
        "GATEWAY_SHARED_MEMORY_BYTES": str(_SHARED_MEMORY_BYTES),
        **({"GATEWAY_WORKERS": str(workers)} if profile.decodes_jpegs else {}),
        **os.environ,
        "GATEWAY_HOST": host,
        "GATEWAY_PORT": str(port),
        "GATEWAY_TRITON_URL": triton.grpc_url,
        "GATEWAY_DEFAULT_MODEL": default_model,
    }
    argv = [sys.executable, "-m", "gateway", "--fd", str(listener.fileno())]
    return running(argv, env, grace_s=_GATEWAY_GRACE_S, pass_fds=[listener.fileno()])


def _is_healthy(url: str) -> bool:
    # The environment's proxy is for other machines.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=_ASK_TIMEOUT_S):
            return True
    except OSError:
        return False


async def _wait_for_unexpected_exit(triton: RunningTriton, gateway: Process) -> None:
    """Wait until a process ends by itself, which is always an error.

    Raises:
        LocalError: Names the process that ended.
    """
    triton_end = asyncio.ensure_future(triton.process.wait())
    gateway_end = asyncio.ensure_future(gateway.wait())
    stub_end = asyncio.ensure_future(triton.wait_for_stub_exit())
    ends = {triton_end, gateway_end, stub_end}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if triton_end.done():
            raise LocalError(f"Triton ended {describe_exit(triton_end.result())}")
        if gateway_end.done():
            raise LocalError(f"the gateway ended {describe_exit(gateway_end.result())}")
        raise LocalError("a model's process in Triton ended, and Triton does not start it again")
    finally:
        for end in ends:
            end.cancel()


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound
    shown = everywhere.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _say_ready(url: str, model_ids: list[str], triton: RunningTriton) -> None:
    """Print the URL and the commands to try; nothing else goes to standard output."""
    lines = [f"Vitriton is ready at {url}", ""]
    for model_id in model_ids:
        is_demo = model_id == DEMO_MODEL
        picture = shlex.quote(str(DEMO_FOLDER / "digits" / "7.png" if is_demo else "image.jpg"))
        lines.append(f"  curl --data-binary @{picture} {url}/models/{model_id}")
    lines += [
        "",
        f"models {url}/info · metrics {url}/metrics and {triton.metrics_url}",
        f"Triton gRPC {triton.grpc_url} · Triton's log {triton.log} · Ctrl-C stops everything",
    ]
    print("\n".join(lines), flush=True)
