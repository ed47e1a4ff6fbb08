"""Architectures that `--init random` knows by name: a transformers config and a preprocessor.

`vit-base` and `deit-base-distilled` have the sizes of `google/vit-base-patch16-224` and
`facebook/deit-base-distilled-patch16-224`; the tiny ones are narrower.
"""

from dataclasses import dataclass
from typing import Any, Final

_VIT_PREPROCESSOR: Final = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": 224,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_DEIT_PREPROCESSOR: Final = {
    "image_processor_type": "DeiTImageProcessor",
    "do_resize": True,
    "size": 256,
    "resample": 3,
    "do_center_crop": True,
    "crop_size": 224,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
_VIT: Final = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
_DEIT: Final = {
    "model_type": "deit",
    "architectures": ["DeiTForImageClassificationWithTeacher"],
}
_BASE: Final = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 16,
}
_TINY: Final = _BASE | {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
_IMAGENET: Final = {"id2label": {str(i): f"LABEL_{i}" for i in range(1000)}}


@dataclass(frozen=True, slots=True)
class Preset:
    """Contents of `config.json` and `preprocessor_config.json`."""

    config: dict[str, Any]
    preprocessor: dict[str, Any]


PRESETS: Final = {
    "vit-base": Preset(_VIT | _BASE | _IMAGENET, _VIT_PREPROCESSOR),
    "vit-tiny": Preset(_VIT | _TINY | _IMAGENET, _VIT_PREPROCESSOR),
    "deit-base-distilled": Preset(_DEIT | _BASE | _IMAGENET, _DEIT_PREPROCESSOR),
    "deit-tiny-distilled": Preset(_DEIT | _TINY | _IMAGENET, _DEIT_PREPROCESSOR),
}
