"""A GPU's TF32, and coarser faults, emulated on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from exporter.device import Graph, ServingDevice
from exporter.graph import load_graph

FLOAT32_BITS: Final = 23
TF32_BITS: Final = 10
BF16_BITS: Final = 7

_aten = torch.ops.aten
# The places of the two operands among the arguments; a bias is added in float32.
Operands = dict[Any, tuple[int, int]]
CONVOLUTIONS: Final[Operands] = {
    _aten.convolution.default: (0, 1),
    _aten._convolution.default: (0, 1),
}
PRODUCTS: Final[Operands] = CONVOLUTIONS | {
    _aten.mm.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.baddbmm.default: (1, 2),
}


class _RoundOperands(TorchDispatchMode):
    """Round the operands of some operations on float32 tensors."""

    def __init__(self, bits: int, operations: Operands) -> None:
        super().__init__()
        self._bits = bits
        self._operations = operations

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        operands = self._operations.get(func, ())
        if not operands and func._can_decompose():
            # In inference mode `linear` and others arrive whole.
            with self:
                return func.decompose(*args, **(kwargs or {}))
        for i in operands:
            args = (*args[:i], rounded(args[i], self._bits), *args[i + 1 :])
        return func(*args, **(kwargs or {}))


@contextmanager
def rounded_operands(bits: int, operations: Operands = PRODUCTS) -> Iterator[None]:
    """Compute with operands of `bits` bits of mantissa in some operations.

    A GPU rounds those of convolutions, and those of matrix products if it is told to.
    """
    # Attention as one operation would hide its two products.
    with sdpa_kernel(SDPBackend.MATH), _RoundOperands(bits, operations):
        yield


def rounded(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    """A float32 tensor with `bits` bits of mantissa, rounded to nearest, ties to even."""
    if tensor.dtype != torch.float32:
        return tensor
    dropped = FLOAT32_BITS - bits
    whole = tensor.view(torch.int32)
    up = (1 << (dropped - 1)) - 1 + (whole >> dropped & 1)
    return (whole + up & -(1 << dropped)).view(torch.float32)


def emulated_gpu(
    bits: int = TF32_BITS, fault: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits
) -> ServingDevice:
    """A device that a graph runs on as on a GPU, with a fault in its logits."""

    def load(path: Path) -> Graph:
        graph = load_graph(path)

        def run(pixels: torch.Tensor) -> torch.Tensor:
            with rounded_operands(bits):
                logits: torch.Tensor = graph(pixels)
            return fault(logits)

        return run

    return ServingDevice("gpu", load)
