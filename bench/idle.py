"""What the machine's processors do when they have nothing to do, which a measurement has to say.

An idle processor halts, and where the machine is virtual, its host then has it for others: whoever
sleeps comes back late and runs slowly at first, by as much as the neighbours please. A limit never
sleeps; a server must. So both are measured with processors that stay awake, where the kernel lets
us have that, and what depends on it with processors that halt as well, in a block before the rest:
a host may need its time to notice a change.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from deploy.local.cpu_latency import cpu_latency, ignored_because
from deploy.local.errors import LocalError


@contextmanager
def awake() -> Iterator[bool]:
    """Let no processor halt in the block, as `vitriton serve --cpu-latency 0` does.

    Yields whether it is so: it takes root, the kernel's device, and idle processors that can spin.
    """
    with ExitStack() as stack:
        is_awake = ignored_because(0) is None
        if is_awake:
            try:
                stack.enter_context(cpu_latency(0))
            except LocalError:
                is_awake = False
        yield is_awake


def can_be_awake() -> bool:
    """Whether a block of `awake` would be."""
    with awake() as is_awake:
        return is_awake
