"""What the machine's processors do when they have nothing to do, which a measurement has to say.

An idle processor halts, and where the machine is virtual, its host then has it for others: whoever
sleeps comes back late and to cold caches, by as much as the neighbours please. A limit never
sleeps; a server must. So both are measured with processors that stay awake, where the kernel lets
us have that, and what depends on it once more with processors that halt.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from deploy.local.cpu_latency import cpu_latency, has_idle_driver
from deploy.local.errors import LocalError


@contextmanager
def awake() -> Iterator[bool]:
    """Let no processor halt in the block, as `vitriton serve --cpu-latency 0` does.

    Yields whether it is so: it takes root, and a kernel with a cpuidle driver.
    """
    is_awake = False
    with ExitStack() as stack:
        with suppress(LocalError):
            stack.enter_context(cpu_latency(0))
            is_awake = has_idle_driver()
        yield is_awake
