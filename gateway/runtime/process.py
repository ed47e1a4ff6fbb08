"""What the process asks of malloc, of Python's garbage collector and of the kernel.

docs/decisions/0008-what-a-request-costs.md has what each is worth.
"""

import ctypes
import gc
import os
import signal
from contextlib import suppress
from typing import Final

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# The largest that malloc takes for the second; a decoded photograph of ten megapixels is below it.
_KEPT_BYTES: Final = 32 * 1024 * 1024

# Of Linux's <sys/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1


def keep_freed_memory() -> None:
    """Have freed memory stay with the process, up to a bound for each thread.

    By default malloc gives the buffers of each decoded image back to the kernel, which has to map
    and clear the same pages anew for the next one: up to half the cost of decoding. No effect where
    the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def spare_what_stays() -> None:
    """Have the collector pass over what is here for good; what comes later it still finds."""
    gc.collect()
    gc.freeze()


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def interrupt_no_one() -> None:
    """Have this thread, and those it starts, wait for a processor instead of taking one away.

    When all are busy, the event loop would else interrupt a decoder, or one of the model's threads
    that the others wait for, each time a byte arrives. An idle processor still takes it at once.
    """
    # A sandbox may forbid it, and other systems lack it.
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def stay_on(cpu: int) -> None:
    """Keep this thread on one processor.

    The kernel leaves a second decoder waiting behind the first while another processor is idle, up
    to four milliseconds, until its next look at who waits where.
    """
    with suppress(OSError, AttributeError):
        os.sched_setaffinity(0, {cpu})
