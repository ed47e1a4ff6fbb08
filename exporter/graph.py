"""Turn a transformers model into the TorchScript that Triton serves.

The graph takes uint8 `(batch, height, width, channels)` and returns float32 logits
`(batch, labels)`. It is traced and frozen on the CPU and names no device, so it loads on any.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch.nn.modules.module import register_module_forward_hook
from tqdm import tqdm

from exporter.errors import ExportError, reason_of
from exporter.precision import TORCH_DTYPES
from exporter.preprocessing import ImageSteps, Normalization
from gateway.modelspec import CHANNELS, Dtype

# Not 1: a dimension of size 1 broadcasts, so a trace that fixes the batch size could pass unseen.
_TRACED_BATCH: Final = 2
_OTHER_BATCH: Final = 3


class ServedClassifier(torch.nn.Module):
    """A classifier that also rescales and normalises its input, and casts its logits to float32."""

    scale: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: Any, normalization: Normalization) -> None:
        super().__init__()
        self.model = model
        self.flips_channels = normalization.flips_channels
        self.layout = _layout(model)
        self.dtype = next(model.parameters()).dtype
        # As tensors they move to the graph's device.
        self.register_buffer("scale", torch.tensor(normalization.scale))
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).view(1, -1, 1, 1))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of uint8 NHWC pixels."""
        pixels = pixel_values.permute(0, 3, 1, 2).to(torch.float32, memory_format=self.layout)
        if self.flips_channels:
            pixels = pixels.flip(1)
        # transformers normalises in float32 too, whatever the model computes in.
        normalized = (pixels * self.scale - self.mean) / self.std
        logits: torch.Tensor = self.model(pixel_values=normalized.to(self.dtype)).logits
        return logits.to(torch.float32)


def _layout(model: torch.nn.Module) -> torch.memory_format:
    """Memory layout of the pixels: channels last, as they arrive, unless that is inexact.

    With channels last, torch's group norm computes the variance as the difference of two large
    sums: BiT's logits were wrong by 3e-3 on pictures of one colour.
    """
    has_group_norm = any(isinstance(module, torch.nn.GroupNorm) for module in model.modules())
    return torch.contiguous_format if has_group_norm else torch.preserve_format


def trace(model: Any, steps: ImageSteps) -> torch.jit.ScriptModule:
    """Trace and freeze `model`, in the precision of its weights.

    Raises:
        ExportError: The model cannot be traced.
    """
    traced = _traced(model, steps, _TRACED_BATCH)
    with _quiet():
        graph: torch.jit.ScriptModule = torch.jit.freeze(traced)
    _follow_input_device(graph)
    return graph


def convert_precision(model: Any, dtype: Dtype | Literal["fp64"]) -> Any:
    """Convert the weights of `model` in place, and return it."""
    # LeViT and others keep float32 tensors between calls; `train` drops them.
    return model.to(TORCH_DTYPES[dtype]).train().eval()


def trace_ignores_batch_size(model: Any, steps: ImageSteps) -> bool:
    """Whether traces at two batch sizes are equal, operation by operation, constants included.

    If they are, no operation and no branch of the model depends on the batch size.

    Raises:
        ExportError: The model cannot be traced.
    """
    # These variables keep the graphs alive; nodes do not.
    traces = [_traced(model, steps, n) for n in (_TRACED_BATCH, _OTHER_BATCH)]
    graphs: list[Any] = [traced.inlined_graph for traced in traces]
    pairs = zip_longest(*(_operations(graph) for graph in graphs))
    return all(a is not None and b is not None and _same_operation(a, b) for a, b in pairs)


def _operations(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _operations(inner)


def _same_operation(a: Any, b: Any) -> bool:
    if a.kind() != b.kind() or _names(a.inputs()) != _names(b.inputs()):
        return False
    if a.kind() != "prim::Constant":
        return True
    value, other = a.output().toIValue(), b.output().toIValue()
    if isinstance(value, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(value, other)
    return bool(value == other)


def _names(values: Any) -> list[str]:
    return [value.debugName() for value in values]


def _traced(model: Any, steps: ImageSteps, batch_size: int) -> torch.jit.ScriptModule:
    size, channels = steps.input_size, CHANNELS[steps.preprocessing.color]
    example = torch.zeros((batch_size, size.height, size.width, channels), dtype=torch.uint8)
    wrapped = ServedClassifier(model, steps.normalization).eval()
    try:
        with torch.inference_mode(), _quiet(), _progress():
            traced: torch.jit.ScriptModule = torch.jit.trace(wrapped, example, check_trace=False)
    except (ValueError, RuntimeError, TypeError, AttributeError) as exc:
        raise ExportError(f"the model cannot be traced: {reason_of(exc)}") from exc
    return traced


@contextmanager
def _progress() -> Iterator[None]:
    """Show how many modules the trace has called; their total is not known before."""
    with tqdm(desc="trace", unit=" modules", disable=None) as bar:

        def count(*_: object) -> None:
            bar.update()

        hook = register_module_forward_hook(count)
        try:
            yield
        finally:
            hook.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # transformers compares shapes in Python; `verify` finds out if the graph is wrong by that.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # not in its __all__
        # torch deprecates TorchScript, which is the format that Triton's backends load.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Tracing reads every attribute of the model, deprecated ones too.
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _follow_input_device(graph: torch.jit.ScriptModule) -> None:
    """Replace each device in the graph by the device of the input.

    The trace records `tensor.device` as the constant "cpu". Models that build index tensors in
    their forward pass, such as BEiT, would fail on a GPU.
    """
    # This variable keeps the graph alive; nodes do not.
    nodes: Any = graph.graph
    constants = device_constants(nodes)
    if not constants:
        return
    pixel_values = list(nodes.inputs())[-1]
    device = nodes.create("prim::device", [pixel_values])
    nodes.prependNode(device)
    device.output().setType(constants[0].output().type())
    for constant in constants:
        constant.output().replaceAllUsesWith(device.output())
    torch._C._jit_pass_dce(nodes)
    nodes.lint()


def device_constants(nodes: Any) -> list[Any]:
    """Nodes of a TorchScript graph that name a device."""
    return [
        node
        for node in nodes.findAllNodes("prim::Constant")
        if node.output().type().kind() == "DeviceObjType"
    ]


def refuse_device_constants(graph: torch.jit.ScriptModule) -> None:
    """Refuse a saved graph that names a device.

    Raises:
        ExportError: Says where in the model the device is named.
    """
    nodes: Any = graph.inlined_graph
    bound = device_constants(nodes)
    if bound:
        where = bound[0].sourceRange().strip().splitlines()
        raise ExportError(
            "the graph names a device and would fail on any other"
            f" ({where[0] if where else 'unknown place'})"
        )


def save(graph: torch.jit.ScriptModule, path: Path) -> None:
    """Write `model.pt`.

    Raises:
        OSError: The disk is full, or the file cannot be written for another reason.
    """
    # Written to memory first: torch's own file writer aborts the process when the disk is full.
    buffer = io.BytesIO()
    torch.jit.save(graph, buffer)
    path.write_bytes(buffer.getbuffer())


def load_graph(path: Path, device: str = "cpu") -> torch.jit.ScriptModule:
    """Load a saved graph onto a device.

    Raises:
        ExportError: The file is not TorchScript.
    """
    try:
        graph: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)
    except (RuntimeError, ValueError) as exc:
        raise ExportError(f"{path} is not a TorchScript file: {reason_of(exc)}") from exc
    return graph
