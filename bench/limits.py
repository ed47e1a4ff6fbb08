"""Measure a limit alone on the machine: decoding without a server, or a graph without a server.

    python -m bench.limits decode PICTURE
    python -m bench.limits floor PICTURE
    echo 3 | python -m bench.limits graph MODEL_PT --batch 8 --threads 2

Prints JSON. Each measurement has a process of its own, so that none influences another. The one of
a graph reads a number of seconds from each line of its input, measures for so long, and prints one
line.
"""

import argparse
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Final, get_args

import numpy as np
import torch
from PIL import Image

from gateway.imaging.images import decode
from gateway.modelspec import Preprocessing, Resample, Size
from gateway.runtime.process import keep_freed_memory
from gateway.settings import DecodeMode

_SIZE: Final = Size(height=224, width=224)
_MAX_PIXELS: Final = 64_000_000
_ROUNDS: Final = 7
_FLOOR_SECONDS: Final = 1.5
# Shorter than the floor's time, as no ratio uses these figures.
_TABLE_SECONDS: Final = 0.5
# TorchScript specialises a graph in its first two calls.
_SETTLING_CALLS: Final = 2
_LEAST_CALLS: Final = 2


def cpu_ms(work: Callable[[], object], seconds: float = _TABLE_SECONDS) -> float:
    """CPU milliseconds of one call of `work`, as the median of a few rounds."""
    start, calls = perf_counter(), 0
    while perf_counter() - start < seconds / _ROUNDS:
        work()
        calls += 1
    rounds = []
    for _ in range(_ROUNDS - 1):
        before = process_time()
        for _ in range(calls):
            work()
        rounds.append((process_time() - before) * 1000 / calls)
    return median(rounds)


def floor(picture: bytes) -> float:
    """CPU milliseconds to decode and resize a picture in mode `fast`, bilinear."""
    steps = Preprocessing(resize=_SIZE, resample="bilinear")
    return cpu_ms(lambda: decode(picture, steps, _MAX_PIXELS, "fast"), _FLOOR_SECONDS)


def decode_costs(picture: bytes) -> dict[str, float]:
    """CPU milliseconds to decode and resize one picture, by image mode and filter."""
    costs = {}
    filters: list[Resample] = ["bilinear", "bicubic"]
    for resample in filters:
        steps = Preprocessing(resize=_SIZE, resample=resample)
        for mode in get_args(DecodeMode):

            def work(steps: Preprocessing = steps, mode: DecodeMode = mode) -> object:
                return decode(picture, steps, _MAX_PIXELS, mode)

            costs[f"{mode} {resample}"] = cpu_ms(work)
    costs |= _candidates(picture)
    return costs


def _candidates(picture: bytes) -> dict[str, float]:
    """Pillow with torch's resizing, which was a candidate for mode `fast`, and Pillow alone."""
    shape = (_SIZE.height, _SIZE.width)

    def torch_resize() -> object:
        decoded = np.array(Image.open(io.BytesIO(picture)))
        pixels = torch.from_numpy(decoded).permute(2, 0, 1)[None]
        small = torch.nn.functional.interpolate(pixels, shape, mode="bilinear", antialias=True)
        return small[0].permute(1, 2, 0).contiguous().numpy()

    def pillow_decode() -> object:
        return Image.open(io.BytesIO(picture)).load()

    torch.set_num_threads(1)
    return {
        "Pillow + torch": cpu_ms(torch_resize),
        "Pillow, decoding alone": cpu_ms(pillow_decode),
    }


def graph_speeds(
    path: Path, batch: int, threads: int, durations: Iterable[float]
) -> Iterator[dict[str, float]]:
    """Images a second and milliseconds a call of a frozen graph on the CPU.

    Args:
        path: A TorchScript file.
        batch: Images in a call.
        threads: Number of torch's threads.
        durations: Seconds of each measurement.
    """
    torch.set_num_threads(threads)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]  # torch's
        pixels = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8)

        def call() -> float:
            start = perf_counter()
            graph(pixels)
            return perf_counter() - start

        # The first calls wait for the first duration: other graphs may be measured until then.
        for n, seconds in enumerate(durations):
            for _ in range(1 if n else _SETTLING_CALLS):
                call()
            times: list[float] = []
            while sum(times) < seconds or len(times) < _LEAST_CALLS:
                times.append(call())
            yield {
                "images_per_s": batch * len(times) / sum(times),
                "p50_ms": median(times) * 1000,
            }


def main() -> None:
    """Measure one limit."""
    parser = argparse.ArgumentParser(description="Measure a limit.")
    parser.add_argument("what", choices=["decode", "floor", "graph"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    # The gateway does the same; without it decoding would cost more than in the gateway.
    keep_freed_memory()
    if options.what == "decode":
        print(json.dumps(decode_costs(options.path.read_bytes())))
    elif options.what == "floor":
        print(json.dumps({"cpu_ms": floor(options.path.read_bytes())}))
    else:
        durations = map(float, sys.stdin)
        for speed in graph_speeds(options.path, options.batch, options.threads, durations):
            print(json.dumps(speed), flush=True)


if __name__ == "__main__":
    main()
