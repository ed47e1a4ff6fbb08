"""Compare the graph, as Triton computes it on this machine, with eager float32 on the CPU.

Half precision rounds, and so does a GPU in float32: it computes convolutions in TF32. What that
does to the logits is measured and recorded. Labels that change clearly, and differences that
rounding does not explain, refuse the export.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from exporter.device import Graph, ServingDevice
from exporter.errors import ExportError
from exporter.sample import Sample, picture_name
from exporter.verify import Call, calls_of, eager_rounding
from gateway.modelspec import Device, Dtype, LowPrecision

# Largest |Δlogit| as a share of the range of the float32 logits. Rounding in deep models adds up to
# less; a model that overflows or loses its accuracy is far above. fp32 stands for TF32, which has
# three more bits of mantissa than bf16: bench/notes/tf32.md has the rounding of every family.
_HALF_TOLERANCE: Final = 0.1
_TOLERANCES: Final[dict[Dtype, float]] = {
    "bf16": _HALF_TOLERANCE,
    "fp16": _HALF_TOLERANCE,
    "fp32": _HALF_TOLERANCE / 2**3,
}
# A best label whose logit leads by more than this share of the tolerance must stay the best.
_CLEAR_LEAD: Final = 0.5
# Float32 has 13 more bits of mantissa than TF32. A model that amplifies float32's rounding
# amplifies TF32's as much: by emulation the ratio was 1,100 to 4,100.
_TF32_PER_FLOAT32: Final = 2**13


@dataclass(frozen=True, slots=True)
class Served:
    """A graph as Triton computes it."""

    graph: Graph
    dtype: Dtype
    device: Device

    def __str__(self) -> str:
        return _where(self.dtype, self.device)


def measure_served(
    model_file: Path, dtype: Dtype, device: ServingDevice, sample: Sample
) -> LowPrecision | None:
    """Measure a saved graph on the device that will serve it.

    Returns:
        The figures; none for float32 on the CPU, which `verify` compares more strictly.

    Raises:
        ExportError: As `measure_low_precision`, or the file is not TorchScript.
    """
    if dtype == "fp32" and device.name == "cpu":
        return None
    return measure_low_precision(Served(device.load(model_file), dtype, device.name), sample)


def measure_low_precision(served: Served, sample: Sample) -> LowPrecision:
    """Measure how a graph's logits differ from those in float32 on the CPU.

    Raises:
        ExportError: The difference is larger than rounding explains, or a logit is not finite.
    """
    differences: list[torch.Tensor] = []
    agreements: list[torch.Tensor] = []
    for call in calls_of(served.graph, sample, "low precision"):
        _refuse_beyond_rounding(call, served, sample)
        differences.append(call.difference.abs().flatten())
        agreements.append(call.actual.argmax(-1) == call.wanted.argmax(-1))
    every, agreed = torch.cat(differences), torch.cat(agreements)
    return LowPrecision(
        device=served.device,
        max_abs_logit_difference=every.max().item(),
        mean_abs_logit_difference=every.mean().item(),
        top1_agreement=agreed.float().mean().item(),
        images=len(agreed),
    )


def _refuse_beyond_rounding(call: Call, served: Served, sample: Sample) -> None:
    """Refuse a call whose differences rounding does not explain.

    Raises:
        ExportError: Names the picture that differs most, and the way out.
    """
    logit_range = (sample.expected.max() - sample.expected.min()).item()
    tolerance = torch.full((len(call.actual),), _TOLERANCES[served.dtype] * logit_range)
    beyond = _beyond(call, tolerance)
    if served.dtype == "fp32" and beyond.any():
        rows = beyond.nonzero().flatten().tolist()
        explained = _explained_by_tf32(call, rows, sample)
        most = _HALF_TOLERANCE * logit_range
        tolerance[rows] = explained.clamp(max=most).maximum(tolerance[rows])
        beyond = _beyond(call, tolerance)
    if beyond.any():
        row = int((call.difference.abs().amax(-1) * beyond).argmax())
        picture = picture_name(call.first + row, len(sample.images))
        raise ExportError(
            f"on {picture} {served} {_fault(call, row, tolerance[row].item())};"
            f" {_way_out(served.dtype)}"
        )


def _beyond(call: Call, tolerance: torch.Tensor) -> torch.Tensor:
    """Which images differ by more than their tolerance, or have lost a clear best label."""
    turned = call.actual.argmax(-1) != call.wanted.argmax(-1)
    lost_label = turned & (_lead(call.wanted) > _CLEAR_LEAD * tolerance)
    return lost_label | (call.difference.abs().amax(-1) > tolerance)


def _lead(logits: torch.Tensor) -> torch.Tensor:
    """Difference between the best and the second-best logit of each row."""
    if logits.shape[-1] == 1:
        return torch.zeros(len(logits))
    best = logits.topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]


def _explained_by_tf32(call: Call, rows: list[int], sample: Sample) -> torch.Tensor:
    """Largest |Δlogit| that TF32 explains for some images, by the model's rounding in float32.

    It is 0 where the model cannot run in float64, which shows that rounding.
    """
    found = eager_rounding(call, rows, sample)
    if found is None:
        return torch.zeros(len(rows))
    _, eager = found
    return (eager * _TF32_PER_FLOAT32).float()


def _fault(call: Call, row: int, tolerance: float) -> str:
    """What a graph does to the logits of one picture of a call."""
    distance = call.difference[row].abs()
    if distance.max() <= tolerance:
        return f"changes a best label that leads clearly, at batch size {len(call.actual)}"
    return (
        f"changes logits[{int(distance.argmax())}] by {distance.max():.2e} at batch size"
        f" {len(call.actual)}, more than rounding explains ({tolerance:.2e})"
    )


def _way_out(dtype: Dtype) -> str:
    if dtype != "fp32":
        return "export the model with --precision fp32"
    return (
        "serve the model on the CPU: `vitriton serve --profile cpu`, or export it with"
        " CUDA_VISIBLE_DEVICES= in the environment and start tritonserver with"
        " --model-config-name=cpu"
    )


def describe_low_precision(report: LowPrecision, dtype: Dtype) -> str:
    """The figures of a comparison with float32 on the CPU, in words."""
    rounds = ", which may round to TF32," if dtype == "fp32" else ""
    return (
        f"{_where(dtype, report.device)}{rounds} against fp32 on the CPU:"
        f" max |Δlogit| {report.max_abs_logit_difference:.1e}, mean"
        f" {report.mean_abs_logit_difference:.1e}, best label the same for"
        f" {report.top1_agreement:.1%} of {report.images} images"
    )


def _where(dtype: Dtype, device: Device) -> str:
    return f"{dtype} on the {device.upper()}"
