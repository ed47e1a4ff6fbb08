"""Read from the tensors of a checkpoint their precision, and whether the model has them all."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Final

import torch
from transformers.modeling_utils import load_state_dict

from exporter.errors import ExportError, as_export_error
from exporter.folder import HOW_TO_MERGE
from exporter.precision import TORCH_DTYPES

# Parts of the names of tensors that PEFT and the library `adapters` add to a model. "lora" also
# finds the tensors of AdaLoRA and Poly, "hada" those of LoHa, "prompt_embeddings" those of CPT.
_ADAPTER_PARTS: Final = (
    *("lora", "adalora", "delora", "gralora", "randlora", "vblora", "xlora", "vera", "pvera"),
    *("loha", "hada", "lokr", "ia3", "oft", "boft", "hra", "bone", "miss", "osf", "road", "shira"),
    *("fourierft", "waveft", "c3a", "cpt", "ln_tuning", "trainable_tokens", "poly"),
    *("prompt_encoder", "prompt_embeddings", "adaption_prompt", "adaption_gate"),
    *("adapter", "adapters", "base_layer", "modules_to_save", "original_module"),
)
_ADAPTER_TENSOR: Final = re.compile(rf"(^|[._])({'|'.join(_ADAPTER_PARTS)})([._]|$)")
_NAMES: Final = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_MAX_NAMED: Final = 3


def stored_dtype(source: str, files: Iterable[Path]) -> str | None:
    """The precision of most numbers in these files, such as `fp32` or `bf16`.

    None if there are no floating-point tensors. Only the descriptions of tensors are read.

    Args:
        source: What the user calls the checkpoint.
        files: The weight files.

    Raises:
        ExportError: A file is damaged, or a pickle holds more than tensors.
    """
    sizes: Counter[torch.dtype] = Counter()
    for file in files:
        for tensor in _describe(source, file).values():
            if tensor.is_floating_point():
                sizes[tensor.dtype] += tensor.numel()
    if not sizes:
        return None
    dtype = sizes.most_common(1)[0][0]
    return _NAMES.get(dtype, str(dtype).removeprefix("torch."))


def _describe(source: str, file: Path) -> dict[str, torch.Tensor]:
    what = f"{source} cannot be loaded: {file.name}"
    with as_export_error(f"{what} is damaged"):
        try:
            tensors: dict[str, torch.Tensor] = load_state_dict(
                file, map_location="meta", weights_only=True
            )
        except UnpicklingError as exc:
            raise ExportError(
                f"{what} is damaged or holds more than tensors, which is never run"
            ) from exc
    return tensors


def refuse_adapter_tensors(source: str, unexpected: Iterable[str]) -> None:
    """Refuse a checkpoint with tensors of an adapter, which the model would ignore.

    Args:
        source: What the user calls the checkpoint.
        unexpected: Names of the tensors that the model lacks.

    Raises:
        ExportError: One of the tensors belongs to an adapter.
    """
    adapter = next((name for name in sorted(unexpected) if _ADAPTER_TENSOR.search(name)), None)
    if adapter is not None:
        raise ExportError(f"{source} holds an adapter's weights ({adapter}): {HOW_TO_MERGE}")


def describe_mismatches(mismatched: Iterable[tuple[str, Iterable[int], Iterable[int]]]) -> str:
    """Names of tensors with their shape in the file and the shape that the config asks for."""
    found = sorted(mismatched)
    named = [
        f"{name} is {_shape(stored)} and not {_shape(wanted)}"
        for name, stored, wanted in found[:_MAX_NAMED]
    ]
    more = [f"{len(found) - _MAX_NAMED} more"] if len(found) > _MAX_NAMED else []
    return ", ".join([*named, *more])


def _shape(sizes: Iterable[int]) -> str:
    return "x".join(str(size) for size in sizes) or "a single number"
