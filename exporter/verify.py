"""Compare the exported graph with eager transformers before anything is written.

Each image goes through the processor's arithmetic and the eager model alone, in float32; the graph
sees the same images in batches, several times. One difference above the tolerance refuses it.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from exporter.errors import ExportError, reason_of
from exporter.preprocessing import ImageSteps
from gateway.modelspec import CHANNELS, Dtype, LowPrecision, Parity

Graph = Callable[[torch.Tensor], torch.Tensor]
Images = npt.NDArray[np.uint8]

# TorchScript's profiling executor specialises the graph between the first calls of a shape.
_CALLS_PER_BATCH_SIZE: Final = 3
# Float32 rounding differs between batch sizes; measured on ViT-base it stays below a tenth of this.
CPU_TOLERANCE: Final = 1e-5
# Another device sums in another order.
GPU_TOLERANCE: Final = 1e-4
# Largest |Δlogit| of half precision, as a share of the range of the float32 logits: what rounding
# adds up to in deep models. A model that overflows or loses its accuracy is far beyond it.
_LOW_PRECISION_TOLERANCE: Final = 0.1
# A best label that leads by more than this share of the range must stay the best.
_CLEAR_LEAD: Final = 0.05
_MIN_IMAGES: Final = 16
_SEED: Final = 0


def batch_sizes_to_verify(max_batch_size: int, some_suffice: bool) -> tuple[int, ...]:
    """Batch sizes to compare, ascending: all that can be served.

    Where some suffice, the powers of two, three, and the two largest.
    """
    if not some_suffice:
        return tuple(range(1, max_batch_size + 1))
    powers = {2**i for i in range(max_batch_size.bit_length())}
    wanted = powers | {3, max_batch_size - 1, max_batch_size}
    return tuple(sorted(n for n in wanted if 1 <= n <= max_batch_size))


def images_to_verify(max_batch_size: int) -> int:
    """Number of images the comparison needs."""
    return max(max_batch_size, _MIN_IMAGES)


def sample_images(count: int, steps: ImageSteps) -> Images:
    """Varied pictures of the model's input size: coarse blocks of colour under noise.

    The last two are black and white all over. Shape `(count, height, width, channels)`.
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


def _windows(batch_sizes: tuple[int, ...], images: int) -> list[tuple[int, int]]:
    """Size and first image of each call: every size, some three times, then every image."""
    largest = batch_sizes[-1]
    thrice = {1, min(2, largest), max(1, largest // 2), largest}
    calls = [
        (n, 0) for n in batch_sizes for _ in range(_CALLS_PER_BATCH_SIZE if n in thrice else 1)
    ]
    rest = [(largest, i) for i in range(largest, images - largest + 1, largest)]
    # The last window ends with the last image, whether or not the sizes divide.
    return [*calls, *rest, *([(largest, images - largest)] if images > largest else [])]


def eager_logits(model: Any, steps: ImageSteps, images: Images) -> torch.Tensor:
    """Logits of the float32 model, one image at a time: `(count, num_labels)`.

    Raises:
        ExportError: One is not finite, or the model does not take images of that size.
    """
    rows = []
    with torch.inference_mode():
        for image in tqdm(images, desc="reference", unit="image", disable=None):
            pixel_values = torch.from_numpy(steps.normalization.apply(image).copy())[None]
            try:
                rows.append(model(pixel_values=pixel_values).logits)
            except (ValueError, RuntimeError, TypeError, AttributeError) as exc:
                size = f"{steps.input_size.width}x{steps.input_size.height}"
                raise ExportError(
                    f"the model does not take {size} images: {reason_of(exc)}"
                ) from exc
    expected = torch.cat(rows).float()
    if expected.ndim != 2 or len(expected) != len(images):
        raise ExportError(f"the model gives {tuple(rows[0].shape)} for one image, not one row")
    if not expected.isfinite().all():
        raise ExportError("the model itself returns logits that are not finite")
    return expected


def verify(
    graph: Graph,
    images: Images,
    expected: torch.Tensor,
    batch_sizes: tuple[int, ...],
    relative_tolerance: float = CPU_TOLERANCE,
) -> Parity:
    """Compare a float32 graph at every one of `batch_sizes`, three calls at some of them.

    Args:
        graph: What will be served.
        images: At least as many as the largest batch has.
        expected: Their `eager_logits`.
        batch_sizes: Ascending.
        relative_tolerance: Accepted |Δlogit| as a share of the largest logit, or of 1.

    Raises:
        ExportError: A logit differs, is not finite, or the shape is not that of `expected`.
    """
    tolerance = relative_tolerance * max(1.0, expected.abs().max().item())
    worst = 0.0
    for n, difference, _ in _differences(graph, images, expected, batch_sizes, "verify"):
        worst = max(worst, difference.abs().max().item())
        if worst > tolerance:
            raise ExportError(
                f"the traced graph differs from eager transformers by {worst:.2e} at batch"
                f" size {n} (tolerance {tolerance:.2e}); the model cannot be exported"
            )
    return Parity(batch_sizes=batch_sizes, max_abs_logit_difference=worst, tolerance=tolerance)


def measure_low_precision(
    graph: Graph, images: Images, expected: torch.Tensor, batch_sizes: tuple[int, ...]
) -> LowPrecision:
    """What a half-precision graph changes against float32; arguments as for `verify`.

    Raises:
        ExportError: The change is beyond what rounding explains, or a logit is not finite.
    """
    logit_range = (expected.max() - expected.min()).item()
    differences: list[torch.Tensor] = []
    agreements: list[torch.Tensor] = []
    for n, difference, wanted in _differences(
        graph, images, expected, batch_sizes, "low precision"
    ):
        actual = wanted + difference
        largest = difference.abs().max().item()
        if largest > _LOW_PRECISION_TOLERANCE * logit_range:
            raise ExportError(
                f"half precision changes a logit by {largest:.2e} at batch size {n}, more than"
                f" rounding explains ({_LOW_PRECISION_TOLERANCE * logit_range:.2e}); export the"
                " model with --precision fp32"
            )
        agrees = actual.argmax(-1) == wanted.argmax(-1)
        if (~agrees & (_lead(wanted) > _CLEAR_LEAD * logit_range)).any():
            raise ExportError(
                f"half precision changes a best label that leads clearly, at batch size {n};"
                " export the model with --precision fp32"
            )
        differences.append(difference.abs().flatten())
        agreements.append(agrees)
    every, agreed = torch.cat(differences), torch.cat(agreements)
    return LowPrecision(
        max_abs_logit_difference=every.max().item(),
        mean_abs_logit_difference=every.mean().item(),
        top1_agreement=agreed.float().mean().item(),
        images=len(agreed),
    )


def _differences(
    graph: Graph,
    images: Images,
    expected: torch.Tensor,
    batch_sizes: tuple[int, ...],
    what: str,
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Batch size, actual minus expected logits, and the expected ones, call by call."""
    windows = _windows(batch_sizes, len(images))
    total = sum(n for n, _ in windows)
    with tqdm(total=total, desc=what, unit="image", disable=None) as bar:
        for n, start in windows:
            wanted = expected[start : start + n]
            yield n, _run(graph, images[start : start + n], wanted) - wanted, wanted
            bar.update(n)


def _lead(logits: torch.Tensor) -> torch.Tensor:
    """How far the best logit of each row is ahead of the next."""
    if logits.shape[-1] == 1:
        return torch.zeros(len(logits))
    best = logits.topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]


def describe_parity(parity: Parity) -> str:
    """The figures of a float32 comparison, in words."""
    return (
        f"max |Δlogit| against transformers {parity.max_abs_logit_difference:.1e} at"
        f" {len(parity.batch_sizes)} batch sizes up to {parity.batch_sizes[-1]}"
    )


def describe_low_precision(report: LowPrecision, dtype: Dtype) -> str:
    """The figures of a half-precision comparison, in words."""
    return (
        f"{dtype} against fp32: max |Δlogit| {report.max_abs_logit_difference:.1e}, mean"
        f" {report.mean_abs_logit_difference:.1e}, best label the same for"
        f" {report.top1_agreement:.1%} of {report.images} images"
    )


def _run(graph: Graph, images: Images, expected: torch.Tensor) -> torch.Tensor:
    try:
        with torch.inference_mode():
            actual = graph(torch.from_numpy(images))
    except RuntimeError as exc:
        # TorchScript's message begins with its own stack; the cause is the last line.
        reason = str(exc).strip().splitlines()[-1]
        raise ExportError(f"the traced graph fails at batch size {len(images)}: {reason}") from exc
    if actual.dtype != torch.float32 or actual.shape != expected.shape:
        raise ExportError(
            f"the traced graph returns {tuple(actual.shape)} {actual.dtype}, not"
            f" {tuple(expected.shape)} torch.float32"
        )
    if not actual.isfinite().all():
        raise ExportError(f"the graph returns a logit that is not finite, batch {len(images)}")
    return actual
