"""Compare the exported graph with eager transformers before anything is written.

Each image goes through the processor's arithmetic and the eager model alone, in float32; the graph
sees the same images in batches, several times. One difference above the tolerance refuses it.
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
# Two programs of one model round differently. Measured ratio: up to 2.2. BiT in the channels-last
# layout had 10, which was a fault.
_ROUNDING_FACTOR: Final = 4
# Of the largest logit: beyond, rounding decides the answers.
_MOST_ROUNDING: Final = 1e-2
# Images whose rounding is measured too: that of the image in question may be small by luck.
_ORDINARY_IMAGES: Final = 4


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a graph."""

    first: int
    """Index of its first image; the others follow."""
    actual: torch.Tensor
    wanted: torch.Tensor

    @property
    def difference(self) -> torch.Tensor:
        """Logits of the graph minus those of the eager model: `(images, num_labels)`."""
        return self.actual - self.wanted


def _windows(batch_sizes: tuple[int, ...], images: int) -> list[tuple[int, int]]:
    """Size and first image of each call: every size, some three times, then every image.

    The pictures of one colour are first: most models that are wrong on any picture are so on them.
    """
    largest = batch_sizes[-1]
    thrice = {min(2, largest), max(1, largest // 2), largest}
    alone = [(1, images - 2), (1, images - 1), (1, 0)]
    calls = alone + [
        (n, 0) for n in batch_sizes[1:] for _ in range(_CALLS_PER_BATCH_SIZE if n in thrice else 1)
    ]
    rest = [(largest, i) for i in range(largest, images - largest + 1, largest)]
    # The last window ends with the last image, whether or not the sizes divide.
    return [*calls, *rest, *([(largest, images - largest)] if images > largest else [])]


def verify(graph: Graph, sample: Sample, relative_tolerance: float = CPU_TOLERANCE) -> Parity:
    """Compare a float32 graph at every batch size of the sample, three calls at some of them.

    A graph that differs by more than the tolerance passes where that is float32's own rounding:
    where it is about as near to float64 as the eager model is.

    Args:
        graph: What will be served.
        sample: What it is compared on.
        relative_tolerance: Accepted |Δlogit| as a share of the largest logit, or of 1.

    Raises:
        ExportError: A logit differs, is not finite, or the shape is not that of `expected`.
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
    """How far graph and eager model are from float64 on the images of one call.

    Raises:
        ExportError: The graph is farther than rounding explains.
    """
    over = (call.difference.abs().amax(-1) > tolerance).nonzero().flatten().tolist()
    ordinary = range(min(_ORDINARY_IMAGES, len(sample.images)))
    exact = sample.float64([*ordinary, *(call.first + row for row in over)])
    if exact is None:
        raise ExportError(_says_where(call, sample, tolerance) + "; the model cannot be exported")
    of_ordinary = (sample.expected[: len(ordinary)] - exact[: len(ordinary)]).abs().max()
    exact = exact[len(ordinary) :]
    eager = (call.wanted[over] - exact).abs().amax(-1).clamp(min=of_ordinary)
    graph = (call.actual[over] - exact).abs().amax(-1)
    rounding = Rounding(graph=graph.max().item(), eager=eager.max().item())
    says = (
        f"{_says_where(call, sample, tolerance)}, and from float64 by {rounding.graph:.1e} where"
        f" eager differs by {rounding.eager:.1e}"
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


def _says_where(call: _Call, sample: Sample, tolerance: float) -> str:
    """The largest difference of a call, in words."""
    row, label = place_of(call.difference.abs() == call.difference.abs().max())
    picture = picture_name(call.first + row, len(sample.images))
    return (
        f"on {picture} logits[{label}] of the traced graph differs from eager transformers by"
        f" {call.difference[row, label].abs():.2e} at batch size {len(call.actual)}"
        f" (tolerance {tolerance:.2e})"
    )


def measure_low_precision(graph: Graph, sample: Sample) -> LowPrecision:
    """What a half-precision graph changes against float32.

    Raises:
        ExportError: The change is beyond what rounding explains, or a logit is not finite.
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
    """Every call of the graph, as it is made."""
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
    """How far the best logit of each row is ahead of the next."""
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
