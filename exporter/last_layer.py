"""Leave out what no logit depends on: most of a ViT's last layer.

ViT and DeiT classify by their class token, a distilled DeiT by its distillation token too. Of the
other tokens the last layer needs keys and values alone; what else it computes of them is dropped.
That is five sixths of a layer's work: docs/decisions/0012-the-last-layer.md.
"""

import copy
from typing import Any, Final

import torch
from transformers import (
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ViTForImageClassification,
)

_CLASSIFIERS: Final = frozenset(
    {
        ViTForImageClassification,
        DeiTForImageClassification,
        DeiTForImageClassificationWithTeacher,
    }
)
# More than the two that are read, as few rows are a rare case for linear layers: oneDNN's fuser
# is wrong with one. It costs 0.6 % of a ViT with 197 tokens.
_KEPT: Final = 16
# Of a layer that is computed as here.
_PARTS: Final = frozenset(
    {
        *("", "attention", "layernorm_before", "layernorm_after", "dropout"),
        *(f"attention.{name}_proj" for name in "qkvo"),
        *("mlp", "mlp.activation_fn", "mlp.fc1", "mlp.fc2"),
    }
)


def with_short_last_layer(model: Any) -> Any:
    """A model with the same logits, weights shared, whose last layer computes what is read.

    The model itself, if it is none of those above or its layers have other parts.
    """
    if type(model) not in _CLASSIFIERS:
        return model
    layers: Any = getattr(model.base_model, "layers", None)
    if not layers or {name for name, _ in layers[-1].named_modules()} != _PARTS:
        return model
    short = torch.nn.ModuleList([*layers[:-1], _ShortLayer(layers[-1])])
    return _with(model, model.base_model_prefix, _with(model.base_model, "layers", short))


def _with(module: torch.nn.Module, name: str, child: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module with another child; all else is shared."""
    twin = copy.copy(module)
    twin._modules = module._modules | {name: child}
    return twin


class _ShortLayer(torch.nn.Module):
    """A layer of ViT or DeiT which answers with the first tokens alone.

    The pre-norm block of Dosovitskiy et al., https://arxiv.org/abs/2010.11929, equations 2 and 3,
    with fewer queries.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        """From `(batch, tokens, hidden)` to `(batch, 16, hidden)`, or all tokens if fewer."""
        layer, attention = self.layer, self.layer.attention
        normed = layer.layernorm_before(hidden_states)

        def heads(projected: torch.Tensor) -> torch.Tensor:
            split: torch.Tensor = projected.unflatten(-1, (-1, attention.head_dim))
            return split.transpose(1, 2)

        attended = torch.nn.functional.scaled_dot_product_attention(
            heads(attention.q_proj(normed[:, :_KEPT])),
            heads(attention.k_proj(normed)),
            heads(attention.v_proj(normed)),
            scale=attention.scaling,
        )
        first = attention.o_proj(attended.transpose(1, 2).flatten(2)) + hidden_states[:, :_KEPT]
        answer: torch.Tensor = layer.mlp(layer.layernorm_after(first)) + first
        return answer
