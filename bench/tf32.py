"""Measure what TF32 does to the logits of every tested family, by emulation on the CPU.

    python -m bench.tf32

Prints the table of `bench/notes/tf32.md`. TF32 has 10 bits of mantissa; a GPU rounds to it the
operands of fp32 convolutions, and those of matrix products if it is told to. The random weights
are the same in every run.
"""

import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch

from exporter.checkpoint import load_checkpoint, quiet_libraries
from exporter.preprocessing import read_image_steps
from exporter.sample import Float64Logits, eager_logits, sample_images
from tests.exporter.tf32 import BF16_BITS, CONVOLUTIONS, TF32_BITS, rounded_operands
from tests.families.checkpoints import AMPLIFYING, FAMILIES, save_family

_IMAGES: Final = 32
_COLUMNS: Final = (
    "family",
    "fp32",
    "TF32 convolutions",
    "TF32 everywhere",
    "one colour",
    "TF32 / fp32",
    "7 bits",
)


def main() -> None:
    """Print one row for each family."""
    print(f"| {' | '.join(_COLUMNS)} |")
    print("|---" * len(_COLUMNS) + "|")
    for family in FAMILIES | AMPLIFYING:
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            row = _measure(save_family(family, Path(folder) / "checkpoint"))
        print(f"| {family} | {' | '.join(row)} |", flush=True)


def _measure(checkpoint_folder: Path) -> list[str]:
    """Largest |Δlogit| of each kind of rounding, as shares of the range of the logits."""
    checkpoint = load_checkpoint(
        str(checkpoint_folder), None, random_weights=False, allow_pickle=False
    )
    steps = read_image_steps(checkpoint.image_processor, 3)
    images = sample_images(_IMAGES, steps)

    def logits(rounding: AbstractContextManager[Any]) -> torch.Tensor:
        with rounding:
            return eager_logits(checkpoint.model, steps, images)

    fp32 = logits(nullcontext())
    exact = Float64Logits(checkpoint.model, steps, images)(range(_IMAGES))
    if exact is None:
        raise SystemExit(f"{checkpoint.model_id} does not run in float64")
    logit_range = (fp32.max() - fp32.min()).item()

    def shares(computed: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return (computed - wanted).abs().amax(-1) / logit_range

    own = shares(fp32, exact)
    convolutions = shares(logits(rounded_operands(TF32_BITS, CONVOLUTIONS)), fp32)
    everywhere = shares(logits(rounded_operands(TF32_BITS)), fp32)
    coarse = shares(logits(rounded_operands(BF16_BITS)), fp32)
    # The last two images have one colour.
    measured = (own, convolutions, everywhere, everywhere[-2:])
    figures = [f"{share.max():.1e}" for share in measured]
    return [*figures, f"{everywhere.max() / own.max():.0f}", f"{coarse.max():.1e}"]


if __name__ == "__main__":
    main()
