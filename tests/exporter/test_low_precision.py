"""What a graph rounds on its device is measured, and refused where rounding does not explain it.

The GPU is emulated on the CPU: convolutions and matrix products round their operands to TF32.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from exporter.check import check_entry
from exporter.device import ServingDevice
from exporter.errors import ExportError
from exporter.graph import convert_precision, load_graph, trace
from exporter.low_precision import Served, describe_low_precision, measure_low_precision
from exporter.precision import Precision
from exporter.sample import Sample, images_to_verify, sample_images
from gateway.modelspec import Device, Dtype
from tests.exporter.entries import export
from tests.exporter.planted_faults import MAX_BATCH, SIZES, STEPS, Classifier, sample_of
from tests.exporter.tf32 import BF16_BITS, TF32_BITS, emulated_gpu, rounded
from tests.families.checkpoints import save_family

KINDS: list[tuple[Dtype, Device]] = [("fp16", "cpu"), ("bf16", "gpu"), ("fp32", "gpu")]
any_kind = pytest.mark.parametrize(("dtype", "device"), KINDS)


class KeepsTensors(Classifier):
    """A model that keeps tensors in eval mode, as LeViT keeps its biases."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[torch.Tensor] = []

    def train(self, mode: bool = True) -> "KeepsTensors":
        if mode:
            self.kept.clear()
        return super().train(mode)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        self.kept = self.kept or [self.linear.weight.T.contiguous()]
        return pixels.flatten(1) @ self.kept[0]


def test_model_that_keeps_float32_tensors_is_traced_in_half_precision() -> None:
    """After the eager run in float32, the same model is traced in bfloat16."""
    model = KeepsTensors().eval()
    sample = sample_of(model)

    graph = trace(convert_precision(model, "bf16"), STEPS)

    report = measure_low_precision(Served(graph, "bf16", "cpu"), sample)
    assert 0 < report.max_abs_logit_difference < 0.1


@any_kind
def test_rounding_is_measured_and_what_loses_the_answer_is_refused(
    dtype: Dtype, device: Device
) -> None:
    """Rounding is accepted, larger differences are not."""
    model = Classifier().eval()
    sample = sample_of(model)
    graph = trace(model, STEPS)

    def served(change: Callable[[torch.Tensor], torch.Tensor]) -> Served:
        return Served(lambda pixels: change(graph(pixels)), dtype, device)

    report = measure_low_precision(served(lambda logits: logits.half().float()), sample)
    assert 0 < report.mean_abs_logit_difference <= report.max_abs_logit_difference < 1e-2
    assert report.device == device
    says = f"{dtype} on the {device.upper()}"
    assert describe_low_precision(report, dtype).startswith(says)
    with pytest.raises(ExportError, match=rf"{says} changes logits\[\d\] by .* than rounding"):
        measure_low_precision(served(lambda logits: logits * 0.5), sample)
    with pytest.raises(ExportError, match="not finite"):
        measure_low_precision(served(lambda logits: logits * torch.inf), sample)


@any_kind
@pytest.mark.parametrize("size", SIZES)
def test_fault_at_any_batch_size_is_found(size: int, dtype: Dtype, device: Device) -> None:
    """All batch sizes are compared, not only the smallest and the largest."""
    model = Classifier().eval()
    graph = trace(model, STEPS)

    def tampered(pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = graph(pixels)
        return logits + (len(pixels) == size)

    with pytest.raises(ExportError, match=f"at batch size {size},"):
        measure_low_precision(Served(tampered, dtype, device), sample_of(model))


@pytest.mark.parametrize(
    ("dtype", "device", "second", "way_out"),
    [
        ("fp16", "cpu", 0.4, "; export the model with --precision fp32$"),
        ("bf16", "gpu", 0.4, "; export the model with --precision fp32$"),
        ("fp32", "gpu", 0.93, "; serve the model on the CPU: .*CUDA_VISIBLE_DEVICES= .*=cpu$"),
    ],
)
def test_change_of_a_clear_best_label_is_refused(
    dtype: Dtype, device: Device, second: float, way_out: str
) -> None:
    """Every logit is within the tolerance, and still another label is the best."""
    images = sample_images(images_to_verify(MAX_BATCH), STEPS)
    expected = torch.tensor([[0.0, 1.0, second, -9.0]]).repeat(len(images), 1)
    sample = Sample(images, expected, SIZES, lambda _: None)
    turned = torch.tensor([[0.0, second, 1.0, -9.0]])
    served = Served(lambda pixels: turned.repeat(len(pixels), 1), dtype, device)

    with pytest.raises(ExportError, match=f"best label that leads clearly, .*{way_out}"):
        measure_low_precision(served, sample)


def test_emulation_rounds_as_torch_does() -> None:
    """Float16 has as many bits of mantissa as TF32; bfloat16 has seven."""
    numbers = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    ties = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11])

    for values in (numbers.clamp(min=2**-10), ties):
        assert torch.equal(rounded(values, TF32_BITS), values.half().float())
        assert torch.equal(rounded(values, BF16_BITS), values.bfloat16().float())


# The last two amplify rounding: the model in float64 tells it from a fault.
@pytest.mark.parametrize("family", ["ViT", "EfficientNet", "BiT", "LeViT", "MobileNetV1"])
def test_fp32_on_a_gpu_is_exported_checked_and_recorded(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The contract has both comparisons: on the CPU without TF32, and on the GPU with it."""
    caplog.set_level("INFO", logger="exporter")
    checkpoint = save_family(family, tmp_path / "checkpoint")

    spec = export(checkpoint, tmp_path / "models", precision="fp32", device=emulated_gpu())
    check_entry(tmp_path / "models" / "checkpoint", str(checkpoint), False, emulated_gpu())

    assert spec.dtype == "fp32"
    report = spec.low_precision
    assert report is not None
    assert report.device == "gpu"
    assert report.max_abs_logit_difference > 10 * spec.parity.max_abs_logit_difference
    figures = f"max |Δlogit| {report.max_abs_logit_difference:.1e}, mean"
    exported, checked = [m for m in caplog.messages if "max |Δlogit| against transformers" in m]
    for line in (exported, checked):
        assert "; fp32 on the GPU, which may round to TF32, against fp32 on the CPU" in line
        assert figures in line


@pytest.mark.parametrize("family", ["MobileViT", "EfficientNet", "BiT"])
def test_fp32_on_a_gpu_that_rounds_as_bf16_does_is_refused(family: str, tmp_path: Path) -> None:
    """Eight times TF32's rounding is a fault, where the model does not hide it."""
    checkpoint = save_family(family, tmp_path / "checkpoint")

    with pytest.raises(ExportError, match=r"fp32 on the GPU changes .* than rounding"):
        export(checkpoint, tmp_path / "m", precision="fp32", device=emulated_gpu(BF16_BITS))

    assert list((tmp_path / "m").iterdir()) == []


def half_of(logits: torch.Tensor) -> torch.Tensor:
    return logits / 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_fault_of_the_gpu_alone_is_found(precision: Precision, tiny: Path, tmp_path: Path) -> None:
    """The same graph passes on the CPU, so export and check must run it on the GPU."""
    faulty = emulated_gpu(fault=half_of)
    export(tiny, tmp_path / "models", precision=precision, device=emulated_gpu())

    says = f"on the all-black sample picture .* {precision} on the GPU changes logits"
    with pytest.raises(ExportError, match=says):
        export(tiny, tmp_path / "models", precision=precision, device=faulty)
    with pytest.raises(ExportError, match=says):
        check_entry(tmp_path / "models" / "tiny", str(tiny), False, faulty)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_without_a_gpu_only_half_precision_is_measured(
    precision: Precision, tiny: Path, tmp_path: Path
) -> None:
    """Float32 on the CPU has the stricter comparison, `parity`."""
    device = ServingDevice("cpu", load_graph)

    spec = export(tiny, tmp_path / "models", precision=precision, device=device)

    assert (spec.low_precision.device if spec.low_precision else None) == (
        "cpu" if precision == "fp16" else None
    )
