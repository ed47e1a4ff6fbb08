"""What a gateway saves that sends JPEGs to Triton instead of decoding them.

    python -m bench.passing_on

The null model, once with pixels and once with files, which Triton decodes on the CPU here. Both
stacks run at the same time and are loaded in turn. Only the gateway's CPU is compared: what
decoding costs Triton depends on the machine, and next to nothing on a GPU's JPEG engines. Prints
the gateway's CPU of both and their ratio; exits 1 if the ratio is over the limit.
"""

import tempfile
from pathlib import Path
from statistics import median
from typing import Final

from bench.idle import processors_awake
from bench.measure import closed, measure
from bench.models import NULL, WORK, bench_models, prepare
from bench.pictures import SMALL, write_picture
from bench.servers import running, vitriton
from tests.jpeg_profile import CPU_JPEG, repository_with_cpu_jpeg

# Of the gateway's CPU with decoding: DESIGN's aim for the gateway in front of a GPU.
_MOST: Final = 0.45
_ROUNDS: Final = 3
_SECONDS: Final = 2.0
_CONCURRENCY: Final = 32


def gateway_cpu_ms() -> tuple[list[float], list[float]]:
    """CPU milliseconds of the gateway for one request in each round: with pixels, with JPEGs."""
    repository = (WORK / "models").resolve()
    models = bench_models(has_bf16=False)
    prepare(repository, [model for model in models if model.model_id == NULL])
    picture = write_picture(WORK, SMALL).resolve()
    with tempfile.TemporaryDirectory(prefix="vitriton-bench-") as folder:
        work = Path(folder)
        files = repository_with_cpu_jpeg(repository, work / "models")
        starts = [
            vitriton([NULL], repository, work, profile="cpu"),
            vitriton([NULL], files, work, profile=CPU_JPEG),
        ]
        costs: tuple[list[float], list[float]] = [], []
        with processors_awake(), running(starts) as servers:
            for server in servers:
                measure(server, NULL, picture, closed(_CONCURRENCY, 1.0))
            for _ in range(_ROUNDS):
                for found, server in zip(costs, servers, strict=True):
                    measured = measure(server, NULL, picture, closed(_CONCURRENCY, _SECONDS))
                    if measured.errors:
                        raise SystemExit(f"bench: {measured.errors} requests failed")
                    found.append(measured.cpu_ms["gateway"])
    return costs


def main() -> None:
    """Measure, print, and fail if the ratio is over the limit."""
    pixels, jpegs = gateway_cpu_ms()
    ratio = median(b / a for a, b in zip(pixels, jpegs, strict=True))
    print(
        f"gateway CPU a request: {median(pixels):.3f} ms with decoding, {median(jpegs):.3f} ms with"
        f" JPEGs sent to Triton: {ratio:.2f} (at most {_MOST})"
    )
    raise SystemExit(ratio > _MOST)


if __name__ == "__main__":
    main()
