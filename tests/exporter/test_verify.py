"""The verification refuses every kind of wrong graph, by faults that the tests plant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.config_pbtxt import ServingOptions
from exporter.errors import ExportError
from exporter.export import ExportRequest, export_model
from exporter.graph import ServedClassifier, device_constants, trace
from exporter.preprocessing import Normalization
from exporter.verify import verify
from tests.checkpoints import save_vit
from tests.exporter.planted_faults import (
    SIZES,
    STEPS,
    BakedBatch,
    BranchOnContent,
    Classifier,
    CoupledBatch,
    MakesTensors,
    Maps,
    NanOnBright,
    Untraceable,
    sample_of,
)
from tests.families.checkpoints import AMPLIFYING, save_family


def export_steps(model: Any) -> None:
    """Trace and verify a model, as an export does."""
    verify(trace(model.eval(), STEPS), sample_of(model))


def test_right_graph_is_accepted() -> None:
    """Without this test a verification that refuses everything would pass the others."""
    export_steps(Classifier())


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (BranchOnContent, "differs from eager transformers"),
        (CoupledBatch, "differs from eager transformers"),
        (BakedBatch, "fails at batch size 1"),
        (NanOnBright, "not finite"),
        (Untraceable, "cannot be traced: data-dependent from here on and more$"),
        (Maps, "not one row"),
    ],
)
def test_planted_fault_is_refused(model: type[Classifier], says: str) -> None:
    """Each fault is found by the step that checks for it."""
    with pytest.raises(ExportError, match=says):
        export_steps(model())


def test_no_device_is_baked_into_the_graph() -> None:
    """The device that the trace records as "cpu" becomes that of the input."""
    model = MakesTensors().eval()
    example = torch.zeros((2, 16, 16, 3), dtype=torch.uint8)
    plain = torch.jit.trace(ServedClassifier(model, STEPS.normalization), example)
    assert device_constants(torch.jit.freeze(plain.eval()).graph)

    nodes = trace(model, STEPS).graph

    assert device_constants(nodes) == []
    assert "prim::device" in str(nodes)
    export_steps(MakesTensors())


def with_fault(fault: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
    """Verify a graph whose n-th call returns changed logits."""
    model = Classifier().eval()
    graph = trace(model, STEPS)
    calls = 0

    def tampered(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return fault(graph(pixels), calls)

    verify(tampered, sample_of(model))


@pytest.mark.parametrize("call", [1, 2, 3, 4, 12])
def test_difference_in_any_call_is_found(call: int) -> None:
    """The calls are the first three of a batch size, and the last of all."""
    with pytest.raises(ExportError, match="differs"):
        with_fault(lambda logits, n: logits + 1e-3 * (n == call))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda logits, _: logits.double(), "torch.float32"),
        (lambda logits, _: logits[:, :4], "returns"),
        (lambda logits, n: logits / (n != 5), "not finite"),
        (lambda logits, _: logits.flip(0), "differs"),
    ],
)
def test_wrong_type_shape_value_or_order_is_found(fault: Any, says: str) -> None:
    """The order of the images in a batch counts too."""
    with pytest.raises(ExportError, match=says):
        with_fault(fault)


@pytest.mark.parametrize("size", SIZES)
def test_fault_at_any_batch_size_is_found(size: int) -> None:
    """All batch sizes are compared, not only the smallest and the largest."""
    model = Classifier().eval()
    sample = sample_of(model)
    graph = trace(model, STEPS)

    def tampered(pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = graph(pixels)
        return logits + (len(pixels) == size)

    with pytest.raises(ExportError, match=f"at batch size {size} "):
        verify(tampered, sample)


class Cancels(Classifier):
    """The difference of two large sums, which rounds otherwise in batches than alone."""

    shift = 1e3

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().logits(pixels + self.shift) - self.linear.weight.sum(1) * self.shift


class CouplesAndCancels(Cancels):
    """A model that rounds like `Rounding`, and also mixes the images of a batch."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = super().logits(pixels)
        return logits + (logits - logits.mean(0, keepdim=True)) * 0.05


class CancelsInFloat32Alone(Cancels):
    """A model that cannot run in float64."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.dtype == torch.float64:
            raise RuntimeError("expected scalar type Float but found Double")
        return super().logits(pixels)


def test_rounding_of_the_model_itself_is_no_fault() -> None:
    """The graph may be as far from float64 as the eager model; the contract then says so."""
    model = Cancels().eval()
    sample = sample_of(model)
    graph = trace(model, STEPS)

    parity = verify(graph, sample)

    assert parity.rounding is not None
    assert parity.max_abs_logit_difference > parity.tolerance
    assert 0 < parity.rounding.graph <= 4 * parity.rounding.eager < 1e-2
    assert next(model.parameters()).dtype == torch.float32
    fault = 8 * parity.rounding.eager
    with pytest.raises(ExportError, match=r"and from float64 by \S+ where eager differs by \S+;"):
        verify(lambda pixels: graph(pixels) + fault, sample)


@pytest.mark.parametrize("family", AMPLIFYING)
def test_untrained_model_is_exported_although_it_amplifies_rounding(
    tmp_path: Path, family: str
) -> None:
    """The eager model's logits differ as much between an image alone and in a batch."""
    checkpoint = save_family(family, tmp_path / "checkpoint")

    request = ExportRequest(str(checkpoint), tmp_path / "models", options=ServingOptions(4))
    parity = export_model(request).parity

    assert parity.max_abs_logit_difference <= parity.tolerance or parity.rounding is not None


@pytest.mark.parametrize("model", [CouplesAndCancels, CancelsInFloat32Alone])
def test_rounding_hides_no_fault(model: type[Classifier]) -> None:
    """Mixed images are a fault, and so is a difference of a model without float64."""
    with pytest.raises(ExportError, match="differs from eager transformers"):
        export_steps(model())


def test_model_whose_answers_are_rounding_is_refused() -> None:
    """The eager model's scores differ between machines, so no graph can equal them."""
    model = Cancels()
    model.shift = 1e6

    with pytest.raises(ExportError, match="loses its answers in float32's own rounding"):
        export_steps(model)


@pytest.mark.parametrize(
    ("call", "picture"),
    [
        (1, r"the all-black sample picture \(15 of 16\)"),
        (2, r"the all-white sample picture \(16 of 16\)"),
        (3, r"sample picture \(1 of 16\)"),
    ],
)
def test_refusal_names_the_picture_and_the_logit(call: int, picture: str) -> None:
    """Pictures of one colour come first: most wrong models are wrong on them."""
    third = torch.eye(5)[2]
    with pytest.raises(ExportError, match=rf"on {picture} logits\[2\] of the traced graph differs"):
        with_fault(lambda logits, n: logits + third * (n == call))
    with pytest.raises(ExportError, match=rf"on {picture} logits\[2\] of the graph is not finite"):
        with_fault(
            lambda logits, n: logits.masked_fill(third > 0, torch.inf) if n == call else logits
        )


class Normalizes(Classifier):
    """A group norm behind a convolution, as in BiT."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 32, 3, padding=1)
        self.norm = torch.nn.GroupNorm(32, 32)
        self.linear = torch.nn.Linear(32 * 16 * 16, 5)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        # The mean is far above the deviation: on one colour, only the picture's border varies.
        return super().logits(self.norm(self.convolution(pixels) + 30))


def test_group_norm_computes_as_exactly_as_in_transformers() -> None:
    """Also on pictures of one colour, where the channels-last layout is inexact."""
    model = Normalizes().eval()
    graph = trace(model, STEPS)
    sample = sample_of(model)

    difference = graph(torch.from_numpy(sample.images)) - sample.expected

    assert difference.abs().max() < 1e-4


def test_graph_that_kept_a_device_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saved file is checked, in case the replacement of devices ever fails."""
    monkeypatch.setattr("exporter.graph._follow_input_device", lambda _: None)
    checkpoint = save_family("BEiT", tmp_path / "beit")

    with pytest.raises(ExportError, match="names a device"):
        export_model(ExportRequest(str(checkpoint), tmp_path / "models"))

    assert list((tmp_path / "models").iterdir()) == []


def test_wrong_arithmetic_in_the_graph_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale that is a thousandth too large makes the export fail."""

    class Wrong(ServedClassifier):
        def __init__(self, model: Any, normalization: Normalization) -> None:
            super().__init__(model, normalization)
            self.scale *= 1.001

    monkeypatch.setattr("exporter.graph.ServedClassifier", Wrong)

    with pytest.raises(ExportError, match="differs from eager transformers"):
        export_model(ExportRequest(str(save_vit(tmp_path / "vit")), tmp_path / "models"))

    assert list((tmp_path / "models").iterdir()) == []
