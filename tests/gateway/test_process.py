"""Settings of the process take effect, as another process measures."""

import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 60
ROUNDS = 100
# Size of a decoded photograph.
BYTES = 6_000_000

FAULTS = f"""
import resource, sys
from gateway.runtime.process import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def use():
    # Three buffers, as decoding and resizing have them: pixels, a copy, the resizer's own.
    buffers = [bytearray({BYTES}) for _ in range(3)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def output_of(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    ).stdout.strip()


def test_freed_memory_is_used_again() -> None:
    """With `keep_freed_memory`, the kernel maps the pages of a buffer only once."""
    pages_an_image = 3 * BYTES // 4096

    kept, given_back = (int(output_of(FAULTS, how)) for how in ("keep", "leave"))

    assert given_back > ROUNDS * pages_an_image / 2
    assert kept < 2 * pages_an_image


def test_collector_skips_startup_objects() -> None:
    """Startup objects leave the collector's lists, and later cycles are still collected."""
    program = """
import gc, weakref
from gateway.runtime.process import exclude_startup_objects_from_collection
class Node: pass
early = Node()
exclude_startup_objects_from_collection()
late = Node(); late.itself = late
reference = weakref.ref(late)
del late
gc.collect()
print(gc.is_tracked(early), any(o is early for o in gc.get_objects()), reference() is None)
"""

    assert output_of(program) == "True False True"
