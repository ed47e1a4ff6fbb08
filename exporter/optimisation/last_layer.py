"""Leave out of a ViT's last layer what no logit depends on.

ViT and DeiT classify by their class token, a distilled DeiT by its distillation token as well. The
last layer needs only the keys and values of the other tokens; their queries, projections and MLP
are dropped, which is five sixths of the layer's work: docs/decisions/0012-the-last-layer.md.
"""

import copy
from typing import Any, Final

import torch
from transformers import (
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ViTForImageClassification,
)

# How many tokens the classifier reads, from the first one on. A DeiT without teacher has a
# distillation token, and its classifier ignores it.
_TOKENS_READ: Final[dict[type[Any], int]] = {
    ViTForImageClassification: 1,
    DeiTForImageClassification: 1,
    DeiTForImageClassificationWithTeacher: 2,
}
# The modules of a layer that `_ShortLayer` computes. A layer with other modules, of another
# version of transformers for example, is left as it is.
_PARTS: Final = frozenset(
    {
        *("", "attention", "layernorm_before", "layernorm_after", "dropout"),
        *(f"attention.{name}_proj" for name in "qkvo"),
        *("mlp", "mlp.activation_fn", "mlp.fc1", "mlp.fc2"),
    }
)


def with_short_last_layer(model: Any) -> Any:
    """A model with the same logits whose last layer computes only the tokens that are read.

    The weights are shared with `model`, which stays as it is. `model` itself is returned if it is
    of another class than those above, or if its last layer has other parts.
    """
    tokens = _TOKENS_READ.get(type(model))
    if tokens is None:
        return model
    layers: Any = getattr(model.base_model, "layers", None)
    if not layers or _parts(layers[-1]) != _PARTS:
        return model
    short = torch.nn.ModuleList([*layers[:-1], _ShortLayer(layers[-1], tokens)])
    return _with(model, model.base_model_prefix, _with(model.base_model, "layers", short))


def _parts(layer: torch.nn.Module) -> set[str]:
    return {name for name, _ in layer.named_modules()}


def _with(module: torch.nn.Module, name: str, child: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module with another child; everything else is shared."""
    twin = copy.copy(module)
    twin._modules = module._modules | {name: child}
    return twin


class _ShortLayer(torch.nn.Module):
    """A layer of ViT or DeiT that returns only its first tokens.

    The pre-norm block of Dosovitskiy et al., https://arxiv.org/abs/2010.11929, equations 2 and 3,
    with fewer queries.
    """

    def __init__(self, layer: Any, tokens: int) -> None:
        super().__init__()
        self.layer = layer
        self.tokens = tokens

    def forward(self, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        """Turn `(batch, all tokens, hidden)` into `(batch, tokens that are read, hidden)`."""
        layer, attention = self.layer, self.layer.attention
        normed = layer.layernorm_before(hidden_states)
        read = hidden_states[:, : self.tokens]

        def heads(projected: torch.Tensor) -> torch.Tensor:
            split: torch.Tensor = projected.unflatten(-1, (-1, attention.head_dim))
            return split.transpose(1, 2)

        attended = torch.nn.functional.scaled_dot_product_attention(
            heads(attention.q_proj(normed[:, : self.tokens])),
            heads(attention.k_proj(normed)),
            heads(attention.v_proj(normed)),
            scale=attention.scaling,
        )
        first = attention.o_proj(attended.transpose(1, 2).flatten(2)) + read
        answer: torch.Tensor = layer.mlp(layer.layernorm_after(first)) + first
        return answer
