"""Measure a model's graph without a server, as our backend runs it: as TorchScript, and captured.

    python -m bench.gpu.graph MODEL_PT --batches 1 8 64 --seconds 0.5

Prints one line of JSON for each batch size and kind of graph, alone and with the copies of pixels
to the GPU and of logits back. A CPU has no CUDA graphs: there both kinds are TorchScript.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

from bench.gpu.timing import device, speed
from deploy.triton_backend.graphs import ServedGraph

TORCHSCRIPT: Final = "TorchScript"
CUDA_GRAPH: Final = "CUDA graph"

_EDGE: Final = 224


def graph_speeds(path: Path, batches: list[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each batch size and kind of graph; a kind that fails has an `error`."""
    shape = _EDGE, _EDGE, 3
    # The most important sizes come first: a run may be cut off.
    for batch in sorted(batches, reverse=True):
        pixels = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)
        if torch.cuda.is_available():
            pixels = pixels.pin_memory()
        for kind in (TORCHSCRIPT, CUDA_GRAPH):
            row: dict[str, Any] = {"kind": kind, "batch": batch}
            try:
                graph = ServedGraph(path, device(), shape, batch)
                if kind == CUDA_GRAPH:
                    _capture(graph, batch)
                row |= _measure(graph, pixels, seconds)
            except RuntimeError as exc:
                # TorchScript writes where it was first, and what was wrong last.
                row["error"] = str(exc).strip().splitlines()[-1]
            yield row


def _capture(graph: ServedGraph, batch: int) -> None:
    """Capture the batch size as our backend does; nothing on a CPU.

    Raises:
        RuntimeError: With the backend's reason.
    """
    failures = graph.capture([batch]) if torch.cuda.is_available() else {}
    if failures:
        raise RuntimeError(failures[batch])


def _measure(graph: ServedGraph, pixels: torch.Tensor, seconds: float) -> dict[str, Any]:
    inputs = graph.inputs(len(pixels)).copy_(pixels)

    def with_copies() -> torch.Tensor:
        return graph.logits(inputs.copy_(pixels, non_blocking=True))

    return {
        "alone": speed(lambda: graph.outputs(inputs), len(pixels), seconds),
        "with_copies": speed(with_copies, len(pixels), seconds),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure a graph without a server.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    with torch.inference_mode():
        for row in graph_speeds(options.path, options.batches, options.seconds):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
