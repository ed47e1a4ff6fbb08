"""The last layer computes what is read, the logits stay what they are."""

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
from exporter.last_layer import with_short_last_layer
from gateway.modelspec import Dtype
from tests.exporter.entries import export

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "initializer_range": 0.35,
    "image_size": 64,
    # 65 tokens, far more than are kept.
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
def test_logits_stay(make: Any) -> None:
    """In the last digits they may move: other matrices are rounded otherwise."""
    model = make().eval()
    pictures = torch.randn(3, 3, 64, 64)
    short = with_short_last_layer(model).eval()
    with torch.no_grad():
        logits, expected = short(pictures).logits, model(pictures).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.1, "pictures that all score alike show nothing"


def test_the_model_itself_stays_whole() -> None:
    """What it gives is what the graph is compared with."""
    model = SHORT["vit"]().eval()
    pictures = torch.randn(1, 3, 64, 64)
    before = flops(model, pictures)
    with_short_last_layer(model)
    assert flops(model, pictures) == before


def test_a_last_layer_costs_keys_and_values() -> None:
    """And of the first sixteen tokens the rest."""
    model = SHORT["vit"]().eval()
    pictures = torch.randn(1, 3, 64, 64)
    saved = flops(model, pictures) - flops(with_short_last_layer(model).eval(), pictures)
    tokens, hidden = (64 // 8) ** 2 + 1, 48
    # Multiply and add, of each token: its query, the projection of what it attended to, and the
    # MLP. Attending itself torch does not count on a CPU.
    of_one_token = 2 * (2 * hidden**2 + 2 * 4 * hidden**2)
    assert saved == (tokens - 16) * of_one_token


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_an_export_has_it(vit: Path, tmp_path: Path, dtype: Dtype) -> None:
    """In every precision."""
    export(vit, tmp_path, name="vit", precision=dtype)
    graph = load_graph(tmp_path / "vit" / "1" / "model.pt")
    model = ViTForImageClassification.from_pretrained(vit).eval()
    short = with_short_last_layer(model).eval()
    exported = flops(graph, torch.zeros(2, 224, 224, 3, dtype=torch.uint8))
    pictures = torch.zeros(2, 3, 224, 224)
    assert exported == flops(short, pictures) < flops(model, pictures)


def with_another_part() -> Any:
    """As of a transformers to come."""
    model = SHORT["vit"]()
    model.vit.layers[-1].attention.q_norm = torch.nn.LayerNorm(12)
    return model


def without_layers() -> Any:
    """The same."""
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
    """BEiT reads every token; of the others nobody has looked."""
    model = make()
    assert with_short_last_layer(model) is model
