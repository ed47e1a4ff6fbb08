"""What a graph is compared on: made pictures, the logits they must give, and the batch sizes."""

from dataclasses import dataclass
from typing import Any, Final

import torch

from exporter.graph import traces_one_program
from exporter.last_layer import with_short_last_layer
from exporter.preprocessing import ImageSteps
from exporter.verify import (
    Images,
    batch_sizes_to_verify,
    eager_logits,
    images_to_verify,
    sample_images,
)

# Running every batch size of a model with more parameters takes minutes on a CPU.
_EVERY_SIZE_PARAMETERS: Final = 30_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """See `exporter.verify` for the shapes."""

    images: Images
    expected: torch.Tensor
    batch_sizes: tuple[int, ...]


def make_sample(model: Any, steps: ImageSteps, max_batch_size: int) -> Sample:
    """The sample for a float32 model.

    Every batch size that can be served is run. Of a large model only some are, if its trace is
    proven to be the same program whatever the batch size.

    Raises:
        ExportError: The model fails on the pictures or cannot be traced.
    """
    images = sample_images(images_to_verify(max_batch_size), steps)
    expected = eager_logits(model, steps, images)
    is_large = sum(parameter.numel() for parameter in model.parameters()) > _EVERY_SIZE_PARAMETERS
    some_suffice = is_large and traces_one_program(with_short_last_layer(model), steps)
    return Sample(images, expected, batch_sizes_to_verify(max_batch_size, some_suffice))
