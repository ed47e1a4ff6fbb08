"""The exported last layer computes only the tokens that are read; the logits stay the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ViTConfig,
    ViTForImageClassification,
    ViTMSNConfig,
    ViTMSNForImageClassification,
)

from exporter.graph import load_graph
from exporter.optimisation.last_layer import with_short_last_layer
from gateway.modelspec import Dtype
from tests.exporter.entries import export

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "initializer_range": 0.35,
    "image_size": 64,
    # 64 patches, so 65 tokens with the class token.
    "patch_size": 8,
    "num_labels": 5,
}
SHORT = {
    "vit": lambda: ViTForImageClassification(ViTConfig(**SMALL)),
    "vit-without-biases": lambda: ViTForImageClassification(ViTConfig(**SMALL, qkv_bias=False)),
    "vit-of-one-patch": lambda: ViTForImageClassification(ViTConfig(**SMALL | {"patch_size": 64})),
    "vit-eager": lambda: ViTForImageClassification(ViTConfig(**SMALL, attn_implementation="eager")),
    "deit": lambda: DeiTForImageClassification(DeiTConfig(**SMALL)),
    "distilled": lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(**SMALL)),
}
WHOLE = {
    "beit": lambda: BeitForImageClassification(BeitConfig(**SMALL)),
    "vit-msn": lambda: ViTMSNForImageClassification(ViTMSNConfig(**SMALL)),
    "no-layers": lambda: ViTForImageClassification(ViTConfig(**SMALL | {"num_hidden_layers": 0})),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def flops(model: Callable[[torch.Tensor], object], pictures: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pictures)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("make", SHORT.values(), ids=SHORT.keys())
def test_logits_are_equal(make: Any) -> None:
    """Up to float32's rounding, which depends on the shapes of the matrices."""
    model = make().eval()
    pictures = torch.randn(3, 3, 64, 64)
    short = with_short_last_layer(model).eval()
    with torch.no_grad():
        logits, expected = short(pictures).logits, model(pictures).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1, "equal logits for all pictures would prove nothing"


def test_original_model_stays_as_it_is() -> None:
    """The graph is compared with the original model's logits."""
    model = SHORT["vit"]().eval()
    pictures = torch.randn(1, 3, 64, 64)
    before = flops(model, pictures)
    with_short_last_layer(model)
    assert flops(model, pictures) == before


@pytest.mark.parametrize(
    ("name", "special_tokens", "tokens_read"),
    [("vit", 1, 1), ("deit", 2, 1), ("distilled", 2, 2)],
)
def test_last_layer_computes_only_tokens_that_are_read(
    name: str, special_tokens: int, tokens_read: int
) -> None:
    """Of all other tokens it computes keys and values alone."""
    model = SHORT[name]().eval()
    pictures = torch.randn(1, 3, 64, 64)
    saved = flops(model, pictures) - flops(with_short_last_layer(model).eval(), pictures)
    tokens, hidden = (64 // 8) ** 2 + special_tokens, 48
    # Multiply and add, of each token: its query, the projection of its attention's result, and
    # the MLP. torch does not count the attention itself on a CPU.
    of_one_token = 2 * (2 * hidden**2 + 2 * 4 * hidden**2)
    assert saved == (tokens - tokens_read) * of_one_token


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_exported_graph_has_the_short_layer(vit: Path, tmp_path: Path, dtype: Dtype) -> None:
    """In float32 and in half precision."""
    export(vit, tmp_path, name="vit", precision=dtype)
    graph = load_graph(tmp_path / "vit" / "1" / "model.pt")
    model = ViTForImageClassification.from_pretrained(vit).eval()
    short = with_short_last_layer(model).eval()
    exported = flops(graph, torch.zeros(2, 224, 224, 3, dtype=torch.uint8))
    pictures = torch.zeros(2, 3, 224, 224)
    assert exported == flops(short, pictures) < flops(model, pictures)


def with_another_part() -> Any:
    """A ViT whose last layer has a part that other versions of transformers may add."""
    model = SHORT["vit"]()
    model.vit.layers[-1].attention.q_norm = torch.nn.LayerNorm(12)
    return model


def without_layers() -> Any:
    """A ViT whose layers have another name."""
    model = SHORT["vit"]()
    model.vit.encoder = model.vit.layers
    del model.vit.layers
    return model


@pytest.mark.parametrize(
    "make",
    [*WHOLE.values(), with_another_part, without_layers],
    ids=[*WHOLE, "another-part", "without-layers"],
)
def test_other_models_are_left_alone(make: Any) -> None:
    """BEiT reads every token; the other models have not been examined."""
    model = make()
    assert with_short_last_layer(model) is model
