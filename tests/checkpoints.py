"""Write checkpoint folders as `save_pretrained` does, with seeded random weights."""

import warnings
from pathlib import Path
from typing import Any

import torch
from google.protobuf import text_format
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    DeiTImageProcessorPil,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)
from tritonclient.grpc.model_config_pb2 import ModelConfig

_SLOW_WARMUPS = 800
_SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    # With transformers' 0.02, a random model gives every picture the same scores.
    "initializer_range": 0.35,
}


def labels(count: int) -> dict[str, Any]:
    """`id2label` and `label2id` with commas, accents and a repetition, as in real models."""
    names = [f"label {i}, étiquette {i % 7}" for i in range(count)]
    names[1] = names[0]
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


def save_vit(folder: Path, **config: Any) -> Path:
    """A ViT at 224: bilinear resize, mean and deviation 0.5."""
    return _save(
        folder,
        ViTForImageClassification,
        ViTConfig(**(_SMALL | labels(12) | config)),
        ViTImageProcessorPil(resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3),
    )


def save_deit_distilled(folder: Path, **config: Any) -> Path:
    """A distilled DeiT at 224: bicubic resize to 256, centre crop, ImageNet mean and deviation."""
    return _save(
        folder,
        DeiTForImageClassificationWithTeacher,
        DeiTConfig(**(_SMALL | labels(9) | config)),
        DeiTImageProcessorPil(
            resample=3,
            size={"height": 256, "width": 256},
            crop_size={"height": 224, "width": 224},
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        ),
    )


def _save(folder: Path, architecture: Any, config: Any, processor: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        architecture(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class _NanModel(torch.nn.Module):
    def __init__(self, labels: int) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        shape = (pixel_values.shape[0], self.labels)
        return torch.full(shape, float("nan"), device=pixel_values.device)


def write_nan_graph(path: Path, labels: int) -> None:
    """Write a `model.pt` whose logits are all NaN, which the exporter would refuse."""
    write_graph(path, _NanModel(labels))


def write_graph(path: Path, module: torch.nn.Module) -> None:
    """Write a module as a `model.pt`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))


def slow_down_loading(entry: Path) -> None:
    """Make loading take seconds: Triton warms the model up hundreds of times."""
    for path in (entry / "config.pbtxt", *entry.glob("configs/*.pbtxt")):
        config = text_format.Parse(path.read_text(), ModelConfig())
        for warmup in config.model_warmup:
            warmup.count = _SLOW_WARMUPS
        path.write_text(text_format.MessageToString(config))
