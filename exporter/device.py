"""The device that this machine serves graphs on, and how a graph runs there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from exporter.graph import load_graph
from gateway.modelspec import Device

Graph = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class ServingDevice:
    """A device that Triton serves graphs on."""

    name: Device
    load: Callable[[Path], Graph]
    """Load a saved graph onto the device, as Triton does; it takes and gives tensors of the CPU."""


def serving_device() -> ServingDevice:
    """The GPU if torch sees one, otherwise the CPU."""
    if torch.cuda.is_available():
        return ServingDevice("gpu", _load_on_gpu)
    return ServingDevice("cpu", load_graph)


def _load_on_gpu(path: Path) -> Graph:
    """Load a graph onto the GPU, and leave torch's settings as Triton's backends leave them.

    A trace holds `allow_tf32=True` as a constant of every convolution. The setting of
    `torch.backends.cudnn` does not reach it, so a GPU rounds the operands of fp32 convolutions to
    TF32 whenever it serves the graph.
    """
    graph = load_graph(path, "cuda")

    def run(pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = graph(pixels.to("cuda")).cpu()
        return logits

    return run
