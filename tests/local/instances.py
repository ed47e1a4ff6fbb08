"""The processes of a model's instances, from outside."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.stack import Stack

_STUB = "triton_python_b"


def instances(stack: Stack) -> list[psutil.Process]:
    """A process each."""
    return [p for p in stack.processes() if p.name().startswith(_STUB)]


@contextmanager
def another_instance_computes(stack: Stack) -> Iterator[None]:
    """It holds the lock that all of them have open."""
    (lock,) = {f.path for p in instances(stack) for f in p.open_files() if f.path.endswith(".py")}
    with Path(lock).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
