"""Compare the exported graph with eager transformers before anything is written.

The eager model computes each image alone, in float32, with the image processor's arithmetic. The
graph computes the same images in batches, several times. One difference above the tolerance
refuses the export. `exporter.low_precision` compares graphs that round more than float32 does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from tqdm import tqdm

from exporter.device import Graph
from exporter.errors import ExportError
from exporter.sample import Images, Sample, picture_name, place_of
from gateway.modelspec import Parity, Rounding

# TorchScript specialises the graph during the first calls of each shape.
_CALLS_PER_BATCH_SIZE: Final = 3
# Accepted |Δlogit| as a share of the largest logit, or of 1 if that is larger. Float32's rounding
# differs between batch sizes; on ViT-base it was below a tenth of this.
_TOLERANCE: Final = 1e-5
# How many times the eager model's rounding the graph's may be. Measured: up to 2.2; for BiT in the
# channels-last layout 10, which was a fault.
_ROUNDING_FACTOR: Final = 4
# Share of the largest logit above which rounding would decide the answers.
_MOST_ROUNDING: Final = 1e-2
# The rounding of this many other images is measured too, as one image's may be small by chance.
_ORDINARY_IMAGES: Final = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a graph."""

    first: int
    """Index of the first image of the batch; the other images follow it."""
    actual: torch.Tensor
    wanted: torch.Tensor

    @property
    def difference(self) -> torch.Tensor:
        """Logits of the graph minus those of the eager model: `(images, num_labels)`."""
        return self.actual - self.wanted


def _windows(batch_sizes: tuple[int, ...], images: int) -> list[tuple[int, int]]:
    """Batch size and first image of each call: every size, some three times, then every image.

    The pictures of one colour come first: most graphs that are wrong at all are wrong on them.
    """
    largest = batch_sizes[-1]
    thrice = {min(2, largest), max(1, largest // 2), largest}
    alone = [(1, images - 2), (1, images - 1), (1, 0)]
    calls = alone + [
        (n, 0) for n in batch_sizes[1:] for _ in range(_CALLS_PER_BATCH_SIZE if n in thrice else 1)
    ]
    rest = [(largest, i) for i in range(largest, images - largest + 1, largest)]
    # One more window ends with the last image, in case the largest size does not divide the count.
    return [*calls, *rest, *([(largest, images - largest)] if images > largest else [])]


def verify(graph: Graph, sample: Sample) -> Parity:
    """Compare a float32 graph on the CPU, at every batch size of the sample, some of them thrice.

    A graph that differs by more than the tolerance passes if float32's rounding explains it: if its
    logits are about as near to those in float64 as the eager model's are.

    Args:
        graph: The graph in float32.
        sample: Images, their expected logits and the batch sizes.

    Raises:
        ExportError: A logit differs or is not finite, or the shape of the logits is wrong.
    """
    tolerance = _TOLERANCE * max(1.0, sample.expected.abs().max().item())
    worst, rounding = 0.0, None
    for call in calls_of(graph, sample, "verify"):
        largest = call.difference.abs().max().item()
        worst = max(worst, largest)
        if largest > tolerance:
            rounding = _larger(rounding, _judge_by_float64(call, sample, tolerance))
    return Parity(
        batch_sizes=sample.batch_sizes,
        max_abs_logit_difference=worst,
        tolerance=tolerance,
        rounding=rounding,
    )


def _judge_by_float64(call: Call, sample: Sample, tolerance: float) -> Rounding:
    """Distance of the graph and of the eager model from float64, on the images of one call.

    Raises:
        ExportError: The graph's distance is larger than rounding explains.
    """
    over = (call.difference.abs().amax(-1) > tolerance).nonzero().flatten().tolist()
    found = eager_rounding(call, over, sample)
    if found is None:
        raise ExportError(
            _describe_largest(call, sample, tolerance) + "; the model cannot be exported"
        )
    exact, eager = found
    graph = (call.actual[over] - exact).abs().amax(-1)
    rounding = Rounding(graph=graph.max().item(), eager=eager.max().item())
    says = (
        f"{_describe_largest(call, sample, tolerance)}, and from float64 by {rounding.graph:.1e}"
        f" where eager differs by {rounding.eager:.1e}"
    )
    if (graph > _ROUNDING_FACTOR * eager).any():
        raise ExportError(f"{says}; the model cannot be exported")
    if rounding.eager > _MOST_ROUNDING * max(1.0, sample.expected.abs().max().item()):
        raise ExportError(
            f"{says}: the model loses its answers in float32's own rounding; it cannot be exported"
        )
    return rounding


def eager_rounding(
    call: Call, rows: list[int], sample: Sample
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Logits of some images of a call in float64, and how far eager float32 is from them.

    Returns:
        Logits `(len(rows), num_labels)`, and for each row the largest |Δlogit| on that image or on
        ordinary ones, `(len(rows),)`; none if the model cannot run in float64.
    """
    ordinary = range(min(_ORDINARY_IMAGES, len(sample.images)))
    exact = sample.float64([*ordinary, *(call.first + row for row in rows)])
    if exact is None:
        return None
    of_ordinary = (sample.expected[: len(ordinary)] - exact[: len(ordinary)]).abs().max()
    exact = exact[len(ordinary) :]
    return exact, (call.wanted[rows] - exact).abs().amax(-1).clamp(min=of_ordinary)


def _larger(a: Rounding | None, b: Rounding) -> Rounding:
    if a is None:
        return b
    return Rounding(graph=max(a.graph, b.graph), eager=max(a.eager, b.eager))


def _describe_largest(call: Call, sample: Sample, tolerance: float) -> str:
    """The largest difference of a call and where it is, in words."""
    row, label = place_of(call.difference.abs() == call.difference.abs().max())
    picture = picture_name(call.first + row, len(sample.images))
    return (
        f"on {picture} logits[{label}] of the traced graph differs from eager transformers by"
        f" {call.difference[row, label].abs():.2e} at batch size {len(call.actual)}"
        f" (tolerance {tolerance:.2e})"
    )


def calls_of(graph: Graph, sample: Sample, what: str) -> Iterator[Call]:
    """Call the graph for every window, and yield each call with its logits."""
    images, expected = sample.images, sample.expected
    windows = _windows(sample.batch_sizes, len(images))
    total = sum(n for n, _ in windows)
    with tqdm(total=total, desc=what, unit="image", disable=None) as bar:
        for n, first in windows:
            wanted = expected[first : first + n]
            actual = _run(graph, images[first : first + n], wanted)
            if not actual.isfinite().all():
                row, label = place_of(~actual.isfinite())
                raise ExportError(
                    f"on {picture_name(first + row, len(images))} logits[{label}] of the graph is"
                    f" not finite ({actual[row, label]}), at batch size {n}"
                )
            yield Call(first, actual, wanted)
            bar.update(n)


def describe_parity(parity: Parity) -> str:
    """The figures of a float32 comparison, in words."""
    rounding = parity.rounding
    return (
        f"max |Δlogit| against transformers {parity.max_abs_logit_difference:.1e} at"
        f" {len(parity.batch_sizes)} batch sizes up to {parity.batch_sizes[-1]}"
    ) + (
        f"; against float64 {rounding.graph:.1e}, of transformers {rounding.eager:.1e}"
        if rounding
        else ""
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
    return actual
