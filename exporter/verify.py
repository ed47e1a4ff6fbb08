"""Compare the exported graph with eager transformers before anything is written.

The eager model computes each image alone, in float32, with the image processor's arithmetic. The
graph computes the same images in batches, several times. One difference above the tolerance
refuses the export.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from tqdm import tqdm

from exporter.errors import ExportError
from exporter.sample import Images, Sample, picture_name, place_of
from gateway.modelspec import Dtype, LowPrecision, Parity, Rounding

Graph = Callable[[torch.Tensor], torch.Tensor]

# TorchScript specialises the graph during the first calls of each shape.
_CALLS_PER_BATCH_SIZE: Final = 3
# Float32's rounding differs between batch sizes; on ViT-base it was below a tenth of this.
CPU_TOLERANCE: Final = 1e-5
# A GPU adds numbers in another order than the CPU.
GPU_TOLERANCE: Final = 1e-4
# Largest |Δlogit| in half precision, as a share of the range of the float32 logits. Rounding in
# deep models adds up to less; a model that overflows or loses its accuracy is far above.
_LOW_PRECISION_TOLERANCE: Final = 0.1
# A best label whose logit leads by more than this share of the range must stay the best.
_CLEAR_LEAD: Final = 0.05
# How many times the eager model's rounding the graph's may be. Measured: up to 2.2; for BiT in the
# channels-last layout 10, which was a fault.
_ROUNDING_FACTOR: Final = 4
# Share of the largest logit above which rounding would decide the answers.
_MOST_ROUNDING: Final = 1e-2
# The rounding of this many other images is measured too, as one image's may be small by chance.
_ORDINARY_IMAGES: Final = 4


@dataclass(frozen=True, slots=True)
class _Call:
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


def verify(graph: Graph, sample: Sample, relative_tolerance: float = CPU_TOLERANCE) -> Parity:
    """Compare a float32 graph at every batch size of the sample, three calls at some of them.

    A graph that differs by more than the tolerance passes if float32's rounding explains it: if its
    logits are about as near to those in float64 as the eager model's are.

    Args:
        graph: The graph that will be served.
        sample: Images, their expected logits and the batch sizes.
        relative_tolerance: Accepted |Δlogit| as a share of the largest logit, or of 1 if that is
            larger.

    Raises:
        ExportError: A logit differs or is not finite, or the shape of the logits is wrong.
    """
    tolerance = relative_tolerance * max(1.0, sample.expected.abs().max().item())
    worst, rounding = 0.0, None
    for call in _calls(graph, sample, "verify"):
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


def _judge_by_float64(call: _Call, sample: Sample, tolerance: float) -> Rounding:
    """Distance of the graph and of the eager model from float64, on the images of one call.

    Raises:
        ExportError: The graph's distance is larger than rounding explains.
    """
    over = (call.difference.abs().amax(-1) > tolerance).nonzero().flatten().tolist()
    ordinary = range(min(_ORDINARY_IMAGES, len(sample.images)))
    exact = sample.float64([*ordinary, *(call.first + row for row in over)])
    if exact is None:
        raise ExportError(
            _describe_largest(call, sample, tolerance) + "; the model cannot be exported"
        )
    of_ordinary = (sample.expected[: len(ordinary)] - exact[: len(ordinary)]).abs().max()
    exact = exact[len(ordinary) :]
    eager = (call.wanted[over] - exact).abs().amax(-1).clamp(min=of_ordinary)
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


def _larger(a: Rounding | None, b: Rounding) -> Rounding:
    if a is None:
        return b
    return Rounding(graph=max(a.graph, b.graph), eager=max(a.eager, b.eager))


def _describe_largest(call: _Call, sample: Sample, tolerance: float) -> str:
    """The largest difference of a call and where it is, in words."""
    row, label = place_of(call.difference.abs() == call.difference.abs().max())
    picture = picture_name(call.first + row, len(sample.images))
    return (
        f"on {picture} logits[{label}] of the traced graph differs from eager transformers by"
        f" {call.difference[row, label].abs():.2e} at batch size {len(call.actual)}"
        f" (tolerance {tolerance:.2e})"
    )


def measure_low_precision(graph: Graph, sample: Sample) -> LowPrecision:
    """Measure how a half-precision graph's logits differ from those in float32.

    Raises:
        ExportError: The difference is larger than rounding explains, or a logit is not finite.
    """
    logit_range = (sample.expected.max() - sample.expected.min()).item()
    differences: list[torch.Tensor] = []
    agreements: list[torch.Tensor] = []
    for call in _calls(graph, sample, "low precision"):
        _refuse_low_precision(call, sample, logit_range)
        differences.append(call.difference.abs().flatten())
        agreements.append(call.actual.argmax(-1) == call.wanted.argmax(-1))
    every, agreed = torch.cat(differences), torch.cat(agreements)
    return LowPrecision(
        max_abs_logit_difference=every.max().item(),
        mean_abs_logit_difference=every.mean().item(),
        top1_agreement=agreed.float().mean().item(),
        images=len(agreed),
    )


def _refuse_low_precision(call: _Call, sample: Sample, logit_range: float) -> None:
    n, distance = len(call.actual), call.difference.abs()
    if distance.max() > _LOW_PRECISION_TOLERANCE * logit_range:
        row, label = place_of(distance == distance.max())
        raise ExportError(
            f"on {picture_name(call.first + row, len(sample.images))} half precision changes"
            f" logits[{label}] by {distance.max():.2e} at batch size {n}, more than rounding"
            f" explains ({_LOW_PRECISION_TOLERANCE * logit_range:.2e}); export the model with"
            " --precision fp32"
        )
    turned = call.actual.argmax(-1) != call.wanted.argmax(-1)
    clearly = turned & (_lead(call.wanted) > _CLEAR_LEAD * logit_range)
    if clearly.any():
        row = int(clearly.nonzero()[0])
        raise ExportError(
            f"on {picture_name(call.first + row, len(sample.images))} half precision changes a best"
            f" label that leads clearly, at batch size {n}; export the model with --precision fp32"
        )


def _calls(graph: Graph, sample: Sample, what: str) -> Iterator[_Call]:
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
            yield _Call(first, actual, wanted)
            bar.update(n)


def _lead(logits: torch.Tensor) -> torch.Tensor:
    """Difference between the best and the second-best logit of each row."""
    if logits.shape[-1] == 1:
        return torch.zeros(len(logits))
    best = logits.topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]


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
    return actual
