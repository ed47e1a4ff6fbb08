"""Settings of the process: of malloc, of Python's garbage collector and of the kernel."""

import ctypes
import gc
import signal
from typing import Final

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# The largest value of M_MMAP_THRESHOLD. A decoded photograph of ten megapixels is smaller.
_KEPT_BYTES: Final = 32 * 1024 * 1024

# Of Linux's <sys/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1


def keep_freed_memory() -> None:
    """Have malloc keep freed memory, up to a bound for each thread.

    By default malloc gives the buffers of each decoded image back to the kernel, which has to map
    and clear the same pages again for the next image: up to half the cost of decoding. No effect
    where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def exclude_startup_objects_from_collection() -> None:
    """Have Python's garbage collector skip all objects that exist now. It collects later objects.

    Otherwise a full collection would look at every object of the imported libraries.
    """
    gc.collect()
    gc.freeze()


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, even by a kill."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
