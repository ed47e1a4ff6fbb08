"""A small checkpoint of every tested family: the real architecture, seeded random weights.

The classifier's weights are enlarged until scores tell pictures apart, as trained ones do.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import transformers as hf

_IMAGE_SIZE: Final = 64

_LABELS: Final = 10
_GAIN: Final = 1.6
# The small model, deep and narrow, would amplify rounding until no two programs agree.
_GAINS: Final = {"EfficientNet": 1.0}
# Standard deviation of the logits over pictures, about that of trained models.
_SPREAD: Final = 2.0
_SMALL: Final = {
    "image_size": _IMAGE_SIZE,
    "patch_size": 8,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
_SWIN: Final = {
    "image_size": _IMAGE_SIZE,
    "patch_size": 4,
    "embed_dim": 24,
    "depths": [1, 1],
    "num_heads": [2, 4],
    "window_size": 4,
}
_CONVOLUTIONS: Final = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}

_SQUARE: Final = {"size": {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}}
_EDGE: Final = {"size": {"shortest_edge": 73}, "crop_size": _IMAGE_SIZE}


def labels(count: int) -> dict[str, Any]:
    """`id2label` and `label2id` without repetition, so that scores compare by label."""
    id2label = {i: f"label {i}" for i in range(count)}
    return {"id2label": id2label, "label2id": {label: i for i, label in id2label.items()}}


def _vit() -> tuple[Any, Any]:
    return (
        hf.ViTForImageClassification(hf.ViTConfig(**_SMALL, **labels(_LABELS))),
        hf.ViTImageProcessorPil(**_SQUARE),
    )


def _deit() -> tuple[Any, Any]:
    return (
        hf.DeiTForImageClassification(hf.DeiTConfig(**_SMALL, **labels(_LABELS))),
        hf.DeiTImageProcessorPil(size=73, crop_size=_IMAGE_SIZE),
    )


def _deit_with_teacher() -> tuple[Any, Any]:
    return (
        hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**_SMALL, **labels(_LABELS))),
        hf.DeiTImageProcessorPil(size=73, crop_size=_IMAGE_SIZE),
    )


def _beit() -> tuple[Any, Any]:
    config = hf.BeitConfig(**_SMALL, use_relative_position_bias=True, **labels(_LABELS))
    return hf.BeitForImageClassification(config), hf.BeitImageProcessorPil(**_SQUARE)


def _swin() -> tuple[Any, Any]:
    return (
        hf.SwinForImageClassification(hf.SwinConfig(**_SWIN, **labels(_LABELS))),
        hf.ViTImageProcessorPil(**_SQUARE, resample=3),
    )


def _swinv2() -> tuple[Any, Any]:
    return (
        hf.Swinv2ForImageClassification(hf.Swinv2Config(**_SWIN, **labels(_LABELS))),
        hf.ViTImageProcessorPil(**_SQUARE, resample=3),
    )


def _convnext() -> tuple[Any, Any]:
    return (
        hf.ConvNextForImageClassification(hf.ConvNextConfig(**_CONVOLUTIONS, **labels(_LABELS))),
        hf.ConvNextImageProcessorPil(size={"shortest_edge": _IMAGE_SIZE}, crop_pct=0.875),
    )


def _resnet() -> tuple[Any, Any]:
    config = hf.ResNetConfig(embedding_size=16, **_CONVOLUTIONS, **labels(_LABELS))
    return (
        hf.ResNetForImageClassification(config),
        hf.ConvNextImageProcessorPil(size={"shortest_edge": _IMAGE_SIZE}, crop_pct=0.95),
    )


def _dinov2() -> tuple[Any, Any]:
    config = hf.Dinov2Config(**{k: v for k, v in _SMALL.items() if k != "intermediate_size"})
    config.id2label = labels(_LABELS)["id2label"]
    return hf.Dinov2ForImageClassification(config), hf.BitImageProcessorPil(**_EDGE)


def _mobilevit() -> tuple[Any, Any]:
    config = hf.MobileViTConfig(
        image_size=_IMAGE_SIZE,
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
        num_attention_heads=2,
        **labels(_LABELS),
    )
    return (
        hf.MobileViTForImageClassification(config),
        hf.MobileViTImageProcessorPil(size={"shortest_edge": 73}, crop_size=_IMAGE_SIZE),
    )


def _efficientnet() -> tuple[Any, Any]:
    config = hf.EfficientNetConfig(
        image_size=_IMAGE_SIZE, width_coefficient=0.5, depth_coefficient=0.4, **labels(_LABELS)
    )
    config.hidden_dim = hf.models.efficientnet.modeling_efficientnet.round_filters(config, 1280)
    return (
        hf.EfficientNetForImageClassification(config),
        hf.EfficientNetImageProcessorPil(**_SQUARE),
    )


def _poolformer() -> tuple[Any, Any]:
    config = hf.PoolFormerConfig(**_CONVOLUTIONS, **labels(_LABELS))
    return (
        hf.PoolFormerForImageClassification(config),
        hf.PoolFormerImageProcessorPil(size={"shortest_edge": _IMAGE_SIZE}, crop_size=_IMAGE_SIZE),
    )


def _siglip() -> tuple[Any, Any]:
    vision = hf.SiglipVisionConfig(**_SMALL)
    config = hf.SiglipConfig(vision_config=vision.to_dict(), **labels(_LABELS))
    return hf.SiglipForImageClassification(config), hf.SiglipImageProcessorPil(**_SQUARE)


def _bit() -> tuple[Any, Any]:
    config = hf.BitConfig(embedding_size=16, **_CONVOLUTIONS, num_groups=8, **labels(_LABELS))
    return hf.BitForImageClassification(config), hf.BitImageProcessorPil(**_EDGE)


def _perceiver() -> tuple[Any, Any]:
    config = hf.PerceiverConfig(
        num_latents=16,
        d_latents=48,
        d_model=48,
        num_blocks=1,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=1,
        image_size=_IMAGE_SIZE,
        **labels(_LABELS),
    )
    return (
        hf.PerceiverForImageClassificationConvProcessing(config),
        hf.PerceiverImageProcessorPil(**_SQUARE, crop_size=73),
    )


def _levit() -> tuple[Any, Any]:
    config = hf.LevitConfig(
        image_size=_IMAGE_SIZE,
        hidden_sizes=[32, 48, 64],
        num_attention_heads=[2, 3, 4],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
        **labels(_LABELS),
    )
    return (
        hf.LevitForImageClassificationWithTeacher(config),
        hf.LevitImageProcessorPil(size={"shortest_edge": _IMAGE_SIZE}, crop_size=_IMAGE_SIZE),
    )


def _mobilenet_v1() -> tuple[Any, Any]:
    config = hf.MobileNetV1Config(image_size=_IMAGE_SIZE, depth_multiplier=0.25, **labels(_LABELS))
    return hf.MobileNetV1ForImageClassification(config), hf.MobileNetV1ImageProcessorPil(**_EDGE)


def _mobilenet_v2() -> tuple[Any, Any]:
    config = hf.MobileNetV2Config(image_size=_IMAGE_SIZE, depth_multiplier=0.35, **labels(_LABELS))
    return hf.MobileNetV2ForImageClassification(config), hf.MobileNetV2ImageProcessorPil(**_EDGE)


FAMILIES: Final[dict[str, Callable[[], tuple[Any, Any]]]] = {
    "ViT": _vit,
    "DeiT": _deit,
    "DeiT with teacher": _deit_with_teacher,
    "BEiT": _beit,
    "Swin": _swin,
    "Swinv2": _swinv2,
    "ConvNeXT": _convnext,
    "ResNet": _resnet,
    "DINOv2": _dinov2,
    "MobileViT": _mobilevit,
    "SigLIP": _siglip,
    "EfficientNet": _efficientnet,
    "PoolFormer": _poolformer,
    "BiT": _bit,
    "Perceiver": _perceiver,
}
# Untrained models of these families amplify float32's rounding to more than 1e-5 per score.
AMPLIFYING: Final[dict[str, Callable[[], tuple[Any, Any]]]] = {
    "LeViT": _levit,
    "MobileNetV1": _mobilenet_v1,
    "MobileNetV2": _mobilenet_v2,
}


def _settle(model: Any) -> None:
    """Run pictures through the model in training mode, so that batch normalisation fits them."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.reset_parameters()
            module.momentum = None  # the plain average of all it sees
    model.train()
    model(pixel_values=_pictures())
    model.eval()


def _pictures() -> torch.Tensor:
    """Normalised pixels with large and small structures, bright and dark."""
    light, shapes, grain = (torch.randn(64, 3, n, n) for n in (1, 4, _IMAGE_SIZE))
    return light + torch.nn.functional.interpolate(shapes, _IMAGE_SIZE) + grain / 2


def save_family(name: str, folder: Path) -> Path:
    """Write the family's checkpoint."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        model, processor = (FAMILIES | AMPLIFYING)[name]()
        gain = _GAINS.get(name, _GAIN)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                scale = gain / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn_like(parameter) * scale)
        _settle(model)
        spread = model(pixel_values=_pictures()).logits.std(0).mean()
        for head, module in model.named_modules():
            if "classifier" in head and isinstance(module, torch.nn.Linear):
                module.weight *= _SPREAD / spread
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
