"""The sample that a graph is compared on: generated pictures, their logits, the batch sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from exporter.errors import ExportError, reason_of
from exporter.graph import convert_precision, trace_ignores_batch_size
from exporter.optimisation.last_layer import with_short_last_layer
from exporter.preprocessing import ImageSteps
from gateway.modelspec import CHANNELS, INPUT_NAME

Images = npt.NDArray[np.uint8]

# With more parameters, running every batch size takes minutes on a CPU.
_EVERY_SIZE_PARAMETERS: Final = 30_000_000
_MIN_IMAGES: Final = 16
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """Pictures and their logits, which a graph must reproduce at all batch sizes."""

    images: Images
    """`(count, height, width, channels)`, at least as many as the largest batch has."""
    expected: torch.Tensor
    """The `eager_logits` of the images."""
    batch_sizes: tuple[int, ...]
    """Batch sizes to compare, ascending."""
    float64: Callable[[Sequence[int]], torch.Tensor | None]
    """Computes logits in float64 for image indices; none if the model cannot run in float64."""


class Float64Logits:
    """Computes and keeps the logits of a float32 model in float64, one image at a time.

    During a computation the model takes twice its memory.
    """

    def __init__(self, model: Any, steps: ImageSteps, images: Images) -> None:
        self._model = model
        self._steps = steps
        self._images = images
        self._rows: dict[int, torch.Tensor] = {}

    def __call__(self, indices: Sequence[int]) -> torch.Tensor | None:
        """Logits `(len(indices), num_labels)`; none if the model cannot run in float64."""
        missing = sorted(set(indices) - set(self._rows))
        if missing:
            convert_precision(self._model, "fp64")
            try:
                logits = eager_logits(
                    self._model, self._steps, self._images[missing], torch.float64
                )
            except ExportError:
                return None
            finally:
                convert_precision(self._model, "fp32")
            self._rows.update(zip(missing, logits, strict=True))
        return torch.stack([self._rows[index] for index in indices])


def make_sample(model: Any, steps: ImageSteps, max_batch_size: int) -> Sample:
    """Make the sample for a float32 model.

    It has every batch size that can be served. For a large model it has only some of them, if the
    traces at two batch sizes are the same program.

    Raises:
        ExportError: The model fails on the pictures or cannot be traced.
    """
    images = sample_images(images_to_verify(max_batch_size), steps)
    expected = eager_logits(model, steps, images)
    is_large = sum(parameter.numel() for parameter in model.parameters()) > _EVERY_SIZE_PARAMETERS
    may_skip_sizes = is_large and trace_ignores_batch_size(with_short_last_layer(model), steps)
    return Sample(
        images,
        expected,
        batch_sizes_to_verify(max_batch_size, may_skip_sizes),
        Float64Logits(model, steps, images),
    )


def batch_sizes_to_verify(max_batch_size: int, may_skip_sizes: bool) -> tuple[int, ...]:
    """Batch sizes to compare, ascending: all that can be served.

    If sizes may be skipped, the powers of two, three, and the two largest.
    """
    if not may_skip_sizes:
        return tuple(range(1, max_batch_size + 1))
    powers = {2**i for i in range(max_batch_size.bit_length())}
    wanted = powers | {3, max_batch_size - 1, max_batch_size}
    return tuple(sorted(n for n in wanted if 1 <= n <= max_batch_size))


def images_to_verify(max_batch_size: int) -> int:
    """Number of images the comparison needs."""
    return max(max_batch_size, _MIN_IMAGES)


def sample_images(count: int, steps: ImageSteps) -> Images:
    """Pictures of the model's input size, `(count, height, width, channels)`.

    They are coarse blocks of colour with noise; the last two are all black and all white.
    """
    height, width = steps.input_size.height, steps.input_size.width
    channels = CHANNELS[steps.preprocessing.color]
    rng = np.random.default_rng(_SEED)
    blocks = rng.integers(0, 256, (count, 7, 7, channels))
    rows = np.arange(height) * 7 // height
    columns = np.arange(width) * 7 // width
    noise = rng.normal(0, 20, (count, height, width, channels))
    pictures = np.clip(blocks[:, rows][:, :, columns] + noise, 0, 255)
    pictures[-2:-1], pictures[-1:] = 0, 255
    return pictures.astype(np.uint8)


def picture_name(index: int, count: int) -> str:
    """Name of one of `sample_images` for error messages."""
    kind = {count - 2: "the all-black sample picture", count - 1: "the all-white sample picture"}
    return f"{kind.get(index, 'sample picture')} ({index + 1} of {count})"


def eager_logits(
    model: Any, steps: ImageSteps, images: Images, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Logits `(count, num_labels)` of the model, whose weights are in `dtype`, image by image.

    Raises:
        ExportError: A logit is not finite, or the model does not take images of that size.
    """
    name = type(model).__name__
    if INPUT_NAME not in signature(model.forward).parameters:
        raise ExportError(f"{name} does not take {INPUT_NAME}, which is all the gateway sends it")
    rows = []
    step = f"reference in {str(dtype).removeprefix('torch.')}"
    with torch.inference_mode():
        for image in tqdm(images, desc=step, unit="image", disable=None):
            pixel_values = torch.from_numpy(steps.normalization.apply(image).copy())[None]
            try:
                rows.append(model(pixel_values=pixel_values.to(dtype)).logits)
            except (ValueError, RuntimeError, TypeError, AttributeError) as exc:
                size = f"{steps.input_size.width}x{steps.input_size.height}"
                raise ExportError(
                    f"{name} does not take {size} images as {INPUT_NAME} alone: {reason_of(exc)}"
                ) from exc
    logits = torch.cat(rows).to(dtype)
    if logits.ndim != 2 or len(logits) != len(images):
        raise ExportError(f"the model gives {tuple(rows[0].shape)} for one image, not one row")
    if not logits.isfinite().all():
        row, label = place_of(~logits.isfinite())
        raise ExportError(
            f"on {picture_name(row, len(images))} logits[{label}] of the model itself is not finite"
            f" ({logits[row, label]})"
        )
    return logits


def place_of(found: torch.Tensor) -> tuple[int, int]:
    """Row and label of the first true element."""
    row, label = found.nonzero()[0].tolist()
    return row, label
