"""Every setting of a preprocessor file is reproduced exactly, or refused."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    BeitImageProcessorPil,
    BitImageProcessorPil,
    ConvNextImageProcessorPil,
    DeiTImageProcessorPil,
    DonutImageProcessorPil,
    EfficientNetImageProcessorPil,
    GLPNImageProcessorPil,
    IdeficsImageProcessorPil,
    ImageGPTImageProcessorPil,
    LevitImageProcessorPil,
    MobileViTImageProcessorPil,
    PerceiverImageProcessorPil,
    PoolFormerImageProcessorPil,
    Siglip2ImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

from exporter.errors import ExportError
from exporter.preprocessing import read_image_steps
from gateway.imaging.pixels import fit
from gateway.modelspec import Resample, Size

SQUARE = {"height": 48, "width": 48}

PROCESSORS: dict[str, Any] = {
    "size as an integer": ViTImageProcessorPil(size=48),
    "size not square": ViTImageProcessorPil(size={"height": 40, "width": 64}),
    "shortest edge": BitImageProcessorPil(size={"shortest_edge": 50}, crop_size=48),
    "shortest edge, odd crop": BitImageProcessorPil(size={"shortest_edge": 51}, crop_size=34),
    "crop after exact size": DeiTImageProcessorPil(size=53, crop_size=48),
    "crop, odd and not square": DeiTImageProcessorPil(
        size={"height": 53, "width": 60}, crop_size={"height": 48, "width": 31}
    ),
    "crop percentage": ConvNextImageProcessorPil(size={"shortest_edge": 48}, crop_pct=0.875),
    "crop percentage, odd": ConvNextImageProcessorPil(size={"shortest_edge": 48}, crop_pct=0.95),
    "crop percentage, warped": ConvNextImageProcessorPil(size={"shortest_edge": 384}),
    "channels flipped": MobileViTImageProcessorPil(size={"shortest_edge": 50}, crop_size=48),
    "channels not flipped": MobileViTImageProcessorPil(
        size={"shortest_edge": 50}, crop_size=48, do_flip_channel_order=False
    ),
    "EfficientNet": EfficientNetImageProcessorPil(size=SQUARE),
    "EfficientNet, one division": EfficientNetImageProcessorPil(size=SQUARE, include_top=False),
    "EfficientNet, offset": EfficientNetImageProcessorPil(
        size=SQUARE, rescale_factor=1 / 127.5, rescale_offset=True, image_mean=0, image_std=0.5
    ),
    "LeViT": LevitImageProcessorPil(size={"shortest_edge": 48}, crop_size=48),
    "LeViT, exact size": LevitImageProcessorPil(size=SQUARE, crop_size=47),
    "PoolFormer": PoolFormerImageProcessorPil(size={"shortest_edge": 48}, crop_size=48),
    "PoolFormer, square": PoolFormerImageProcessorPil(size=SQUARE, crop_size=48, crop_pct=0.95),
    "PoolFormer, no percentage": PoolFormerImageProcessorPil(
        size={"shortest_edge": 50}, crop_size=48, crop_pct=None
    ),
    "Perceiver": PerceiverImageProcessorPil(size=SQUARE, crop_size={"height": 55, "width": 55}),
    "Perceiver, not square": PerceiverImageProcessorPil(
        size={"height": 40, "width": 64}, crop_size={"height": 64, "width": 73}
    ),
    "Perceiver, nothing cut off": PerceiverImageProcessorPil(size=SQUARE, crop_size=SQUARE),
    "Perceiver, no crop": PerceiverImageProcessorPil(size=SQUARE, do_center_crop=False),
    "BEiT": BeitImageProcessorPil(size=SQUARE),
    "SigLIP": SiglipImageProcessorPil(size=SQUARE),
    "no rescaling": ViTImageProcessorPil(size=48, do_rescale=False),
    "another factor": ViTImageProcessorPil(size=48, rescale_factor=1 / 127.5),
    "no normalising": ViTImageProcessorPil(size=48, do_normalize=False),
    "neither": ViTImageProcessorPil(size=48, do_normalize=False, do_rescale=False),
    "one mean for all": ViTImageProcessorPil(size=48, image_mean=0.4, image_std=0.3),
    "a mean a channel": ViTImageProcessorPil(
        size=48, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    ),
    **{
        f"filter {name}": ViTImageProcessorPil(size=48, resample=Image.Resampling[name.upper()])
        for name in get_args(Resample)
    },
}


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_steps_are_the_processors_own(processor: Any) -> None:
    """The exporter's own proof passes, and one more picture agrees up to rounding."""
    steps = read_image_steps(processor, 3)

    noise = np.random.default_rng(7).integers(0, 256, (211, 173, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    wanted = np.asarray(processor(picture, return_tensors="pt")["pixel_values"][0])
    actual = steps.normalization.apply(fit(picture, steps.preprocessing))
    assert actual.shape == (3, steps.input_size.height, steps.input_size.width)
    np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)


@given(
    st.sampled_from(["exact", "edge", "crop_pct"]),
    st.integers(8, 60),
    st.integers(0, 9),
    st.sampled_from([0, 1, 2, 3, 4, 5]),
)
def test_any_size_and_crop_is_reproduced(kind: str, size: int, margin: int, resample: int) -> None:
    """The exporter's own proof would refuse a difference."""
    processor = {
        "exact": lambda: DeiTImageProcessorPil(
            size=size + margin, crop_size=size, resample=resample
        ),
        "edge": lambda: BitImageProcessorPil(
            size={"shortest_edge": size + margin}, crop_size=size, resample=resample
        ),
        "crop_pct": lambda: ConvNextImageProcessorPil(
            size={"shortest_edge": size}, crop_pct=1 - margin / 20, resample=resample
        ),
    }[kind]()

    assert read_image_steps(processor, 3).input_size == Size(height=size, width=size)


def test_one_channel_models_take_grey(tmp_path: Any) -> None:
    """Their settings have one mean and one deviation."""
    processor = ViTImageProcessorPil(size=48, image_mean=[0.4], image_std=[0.2])

    steps = read_image_steps(processor, 1)

    assert steps.preprocessing.color == "L"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    assert fit(picture.convert("L"), steps.preprocessing).shape == (48, 48, 1)


REFUSED: dict[str, tuple[Any, int, str]] = {
    "a filter of Pillow's newest": (ViTImageProcessorPil(size=48, resample=6), 3, "filter"),
    "four channels": (ViTImageProcessorPil(size=48), 4, "4 channels"),
    "padding": (ViTImageProcessorPil(size=48, do_pad=True), 3, "do_pad"),
    "a longest edge": (
        ViTImageProcessorPil(size={"shortest_edge": 48, "longest_edge": 60}),
        3,
        "no fixed size",
    ),
    "no size": (ViTImageProcessorPil(do_resize=False), 3, "different sizes"),
    "shortest edge alone": (
        BitImageProcessorPil(size={"shortest_edge": 48}, do_center_crop=False),
        3,
        "different sizes",
    ),
    "crop larger than the image": (DeiTImageProcessorPil(size=40, crop_size=48), 3, "pads them"),
    "a share that is more than there is": (
        PerceiverImageProcessorPil(size=SQUARE, crop_size={"height": 48, "width": 40}),
        3,
        "crops 48/40 x 48/48 of the shorter side.* pads",
    ),
    "a share without a size": (
        PerceiverImageProcessorPil(
            size=SQUARE, crop_size={"height": 55, "width": 55}, do_resize=False
        ),
        3,
        "different sizes",
    ),
    "colours as tokens": (
        ImageGPTImageProcessorPil(clusters=[[0, 0, 0], [1, 1, 1]], size=SQUARE),
        3,
        "ImageGPT.* gives the model input_ids; the gateway sends it pixel_values",
    ),
    "patches of any picture's own shape": (
        Siglip2ImageProcessorPil(),
        3,
        "Siglip2.* gives the model pixel_values, pixel_attention_mask, spatial_shapes;",
    ),
    "crop without a size": (
        DeiTImageProcessorPil(do_resize=False, crop_size=48),
        3,
        "smaller",
    ),
    "two crops": (
        ConvNextImageProcessorPil(size={"shortest_edge": 48}, do_center_crop=True, crop_size=40),
        3,
        "crops twice",
    ),
    "no kind of size": (GLPNImageProcessorPil(), 3, "GLPN.* has no shortest_edge"),
    "several pictures for one": (IdeficsImageProcessorPil(), 3, "itself fails on a 640x427 image"),
    "steps of its own": (
        DonutImageProcessorPil(size=SQUARE, do_pad=False, do_thumbnail=True),
        3,
        "does not know",
    ),
}


@pytest.mark.parametrize(("processor", "channels", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_irreproducible_setting_is_refused(processor: Any, channels: int, says: str) -> None:
    """The error names the setting; nothing is approximated."""
    with pytest.raises(ExportError, match=says):
        read_image_steps(processor, channels)


class Fails(ViTImageProcessorPil):  # type: ignore[misc]  # transformers is untyped here
    """A processor that always fails."""

    def preprocess(self, *_: Any, **__: Any) -> Any:
        raise ValueError("out of order")


def test_processor_that_fails_is_refused() -> None:
    """The error has the processor's own reason and the picture's size."""
    with pytest.raises(ExportError, match=r"Fails itself fails on a \d+x\d+ image: out of order"):
        read_image_steps(Fails(size=48), 3)
