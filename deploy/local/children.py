"""Start child processes that end together with this process, and wait for them."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import psutil

from deploy.local.errors import LocalError
from gateway.runtime.process import end_with_parent

T = TypeVar("T")

_POLL_S: Final = 0.05


@asynccontextmanager
async def running(
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    *,
    grace_s: float,
    log: Path | None = None,
    stdout: int | None = None,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[Process]:
    """Run a program during the block; at its end the program and all it started are stopped.

    Args:
        argv: Program and arguments.
        env: Its whole environment.
        grace_s: Time from SIGTERM to SIGKILL, in seconds.
        log: The file that all output of the program goes to; by default it goes where ours goes.
        stdout: Where only its standard output goes, as for `subprocess`.
        pass_fds: File descriptors that the program inherits.
    """
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log else None
        # In a session of its own the program gets no SIGINT from Ctrl-C in the terminal: only this
        # process does, and then stops its children in order.
        process = await asyncio.create_subprocess_exec(
            *map(str, argv),
            env=env,
            stdin=DEVNULL,
            stdout=output or stdout,
            stderr=output,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    try:
        yield process
    finally:
        await _stop(process, grace_s)


async def _stop(process: Process, grace_s: float) -> None:
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await process.wait()
    # The program may have ended and left processes that it started.
    kill_session(process)
    await process.wait()


def kill_session(process: Process) -> None:
    """Kill the program and all it started, without waiting."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def wait_until_ready(
    ready: Callable[[], Awaitable[T | None]], process: Process, name: str, timeout_s: float
) -> T:
    """Call `ready` repeatedly until it returns something true, and return that.

    Raises:
        LocalError: The process ended before, or `timeout_s` seconds passed.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                answer = await result_unless_exited(ready(), process, name)
                if answer:
                    return answer
                await asyncio.sleep(_POLL_S)
    except TimeoutError as exc:
        raise LocalError(f"{name} was not ready within {timeout_s:g} s") from exc


async def result_unless_exited(work: Awaitable[T], process: Process, name: str) -> T:
    """Result of `work`, if it is there before the process ends.

    Raises:
        LocalError: The process ended.
    """
    task = asyncio.ensure_future(work)
    end = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise LocalError(f"{name} ended {describe_exit(end.result())} while it was starting")
    finally:
        task.cancel()
        end.cancel()


def describe_exit(returncode: int) -> str:
    """The exit code or signal that a process ended with, in words."""
    if returncode < 0:
        return f"by signal {signal.Signals(-returncode).name}"
    return f"with exit code {returncode}"


async def wait_for_first_exit(pids: Sequence[int]) -> int:
    """Wait until one of these processes, which need not be our children, ends; return its pid."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def note(pid: int) -> None:
        if not ended.done():
            ended.set_result(pid)

    with contextlib.ExitStack() as stack:
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                return pid
            stack.callback(os.close, fd)
            loop.add_reader(fd, note, pid)
            stack.callback(loop.remove_reader, fd)
        return await ended


def descendants(process: Process, name_prefix: str) -> list[int]:
    """Pids of the processes below `process` whose names begin with `name_prefix`."""
    try:
        found = psutil.Process(process.pid).children(recursive=True)
        return [child.pid for child in found if child.name().startswith(name_prefix)]
    except psutil.NoSuchProcess:
        return []
