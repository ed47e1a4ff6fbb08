"""Measure a model's graph without a server: as TorchScript, and captured as a CUDA graph.

    python -m bench.gpu.graph MODEL_PT --batches 1 8 64 --seconds 0.5

Prints one line of JSON for each batch size and kind of graph, alone and with the copies of pixels
to the GPU and of logits back. A CPU has no CUDA graphs: there both kinds are TorchScript.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch

from bench.gpu.timing import device, speed

TORCHSCRIPT: Final = "TorchScript"
CUDA_GRAPH: Final = "CUDA graph"

_EDGE: Final = 224
_CALLS_BEFORE_CAPTURE: Final = 3

_Graph = Callable[[torch.Tensor], torch.Tensor]


def graph_speeds(path: Path, batches: list[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each batch size and kind of graph; a kind that fails has an `error`."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = torch.jit.load(str(path), map_location=device()).eval()  # type: ignore[no-untyped-call]  # torch's
        # The most important sizes come first: a run may be cut off.
        for batch in sorted(batches, reverse=True):
            pixels = torch.randint(0, 256, (batch, _EDGE, _EDGE, 3), dtype=torch.uint8)
            if torch.cuda.is_available():
                pixels = pixels.pin_memory()
            for kind, make in ((TORCHSCRIPT, _plain), (CUDA_GRAPH, _captured)):
                row: dict[str, Any] = {"kind": kind, "batch": batch}
                try:
                    row |= _measure(make(graph, pixels.to(device())), pixels, seconds)
                except RuntimeError as exc:
                    # TorchScript writes where it was first, and what was wrong last.
                    row["error"] = str(exc).strip().splitlines()[-1]
                yield row


def _measure(graph: _Graph, pixels: torch.Tensor, seconds: float) -> dict[str, Any]:
    on_device = pixels.to(device())
    return {
        "alone": speed(lambda: graph(on_device), len(pixels), seconds),
        "with_copies": speed(lambda: _with_copies(graph, pixels), len(pixels), seconds),
    }


def _with_copies(graph: _Graph, pixels: torch.Tensor) -> torch.Tensor:
    return graph(pixels.to(device(), non_blocking=True)).cpu()


def _plain(graph: _Graph, _: torch.Tensor) -> _Graph:
    return graph


def _captured(graph: _Graph, pixels: torch.Tensor) -> _Graph:
    """The graph captured for the shape of `pixels`, which are on the device."""
    if not torch.cuda.is_available():
        return graph
    # Captured work must not be the first of its kind: libraries allocate memory then.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_CALLS_BEFORE_CAPTURE):
            graph(pixels)
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        logits = graph(pixels)

    def replay(batch: torch.Tensor) -> torch.Tensor:
        pixels.copy_(batch, non_blocking=True)
        captured.replay()
        return logits

    return replay


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure a graph without a server.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    for row in graph_speeds(options.path, options.batches, options.seconds):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
