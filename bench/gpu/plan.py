"""What a run measures: in full on a GPU, or quickly on any machine to try the code."""

from dataclasses import dataclass
from typing import Final, Literal

from tests.jpeg_profile import CPU_JPEG

Mode = Literal["pixels", "jpegs"]
"""What the gateway sends to Triton."""

MODEL: Final = "bench/model"
NULL: Final = "bench/null"

# A process of the load generator asks for a few thousand images a second.
_CLIENTS_PER_PROCESS: Final = 64
_MOST_PROCESSES: Final = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and times of a run."""

    name: str
    preset: str
    precision: str
    max_batch_size: int
    profiles: dict[Mode, str]
    """The profile of `vitriton serve` that measures each mode."""
    clients: tuple[int, ...]
    """Numbers of clients, the most important first."""
    load_s: float
    sweep_clients: int
    sweep_s: float
    workers: dict[Mode, tuple[int, ...]]
    """Workers of the gateway; the decoding threads are shared out among them."""
    instances: tuple[int, ...]
    batches: tuple[int, ...]
    """Batch sizes of the graph and of the JPEG decoders."""
    resize_batches: tuple[int, ...]
    limit_s: float
    """Seconds of each measurement without a server."""


FULL: Final = Plan(
    name="full",
    preset="vit-base",
    precision="fp16",
    # Verifying 128 takes twice as long, and a ViT-base gains 2 % by it on an H200.
    max_batch_size=64,
    profiles={"jpegs": "gpu-jpeg", "pixels": "gpu"},
    clients=(256, 1, 8, 512, 128, 32),
    load_s=3.0,
    sweep_clients=256,
    sweep_s=2.0,
    workers={"jpegs": (4, 8, 2, 6, 12), "pixels": (4, 8, 2)},
    # Two are what is exported.
    instances=(1, 3),
    batches=(1, 8, 32, 64, 128),
    resize_batches=(8, 64),
    limit_s=0.4,
)
QUICK: Final = Plan(
    name="quick",
    preset="vit-tiny",
    precision="fp32",
    max_batch_size=4,
    profiles={"jpegs": CPU_JPEG, "pixels": "cpu"},
    clients=(8, 1),
    load_s=0.6,
    sweep_clients=8,
    sweep_s=0.6,
    workers={"jpegs": (1, 2), "pixels": (2,)},
    instances=(2,),
    batches=(1, 4),
    resize_batches=(4,),
    limit_s=0.05,
)


def load_processes(clients: int) -> int:
    """Processes of the load generator for a number of clients."""
    return min(_MOST_PROCESSES, -(-clients // _CLIENTS_PER_PROCESS))
