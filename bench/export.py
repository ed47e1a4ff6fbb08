"""Measure an export: seconds and peak memory of `vitriton export vit-base --init random`.

86 million parameters with random weights, all checks included. Prints JSON, exits 1 past a limit.
Run it in the environment of `make install`: make bench-export.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from time import monotonic
from typing import Final

LIMIT_S: Final = 90.0
LIMIT_GB: Final = 6.0
_TIMEOUT_S: Final = 900.0


def main() -> None:
    """Export once into an empty folder."""
    with tempfile.TemporaryDirectory(prefix="vitriton-bench-export-") as folder:
        argv = [sys.executable, "-m", "deploy.cli", "export", "vit-base", "--init", "random"]
        start = monotonic()
        subprocess.run(
            [*argv, "--name", "bench/vit-base", "--output", f"{folder}/models"],
            check=True,
            timeout=_TIMEOUT_S,
        )
        seconds = monotonic() - start
    gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    report = {
        "seconds": round(seconds, 1),
        "peak_memory_gb": round(gigabytes, 2),
        "processors": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(report))
    if seconds > LIMIT_S or gigabytes > LIMIT_GB:
        raise SystemExit(f"past the limits: {LIMIT_S:g} s and {LIMIT_GB:g} GB")


if __name__ == "__main__":
    main()
