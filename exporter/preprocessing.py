"""Divide an image processor's steps between the gateway and the graph, and prove the result.

The gateway resizes and crops uint8 pixels; the graph rescales, normalises and orders the channels.
The proof: the gateway's own code and the image processor prepare the same generated images of many
sizes, and the export is refused if a pixel differs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image
from transformers import (
    ConvNextImageProcessorPil,
    EfficientNetImageProcessorPil,
    LevitImageProcessorPil,
    PerceiverImageProcessorPil,
    PoolFormerImageProcessorPil,
)
from transformers.models.timm_wrapper.image_processing_timm_wrapper import (
    TimmWrapperImageProcessor,
)

from exporter.errors import ExportError, reason_of
from exporter.processor_file import without_pillow
from gateway.imaging.pixels import fit
from gateway.modelspec import (
    INPUT_NAME,
    Color,
    CropRounding,
    Preprocessing,
    Resample,
    Shares,
    Size,
)
from gateway.tensors import Pixels

# Width and height of the images of the proof: both orientations, odd differences, sizes far above
# and far below any model's input, and extreme shapes.
_PROOF_SIZES: Final = (
    *((640, 427), (427, 640), (301, 300), (257, 511), (224, 224), (256, 256), (97, 61), (31, 64)),
    *((1, 1), (900, 7), (7, 500), (1023, 769)),
)
# Only float32's rounding; a difference of one grey level is about a thousand times larger.
_RELATIVE_TOLERANCE: Final = 1e-5
# Errors that image processors raise, also for a library that is not installed.
_PROCESSOR_ERRORS: Final = (
    ValueError,
    TypeError,
    RuntimeError,
    LookupError,
    AttributeError,
    ImportError,
)
# ConvNeXT's rule: from this size on, images are resized to a square, not cropped.
_CONVNEXT_WARP_EDGE: Final = 384
_PROOF_SEED: Final = 0
# LeViT's rule: images are resized to this many times the size in the settings, then cropped.
_LEVIT_MARGIN: Final = 256 / 224
# How torchvision's CenterCrop, which timm uses, rounds half a pixel.
_TIMM_ROUNDING: Final[CropRounding] = "half_even"


@dataclass(frozen=True, slots=True)
class Normalization:
    """Float32 arithmetic on uint8 pixels: `(pixel * scale - mean) / std`, a value per channel."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flips_channels: bool = False
    """Whether the model takes the channels in the order blue, green, red."""

    def apply(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Compute what the graph does to pixels, `(height, width, channels)` to `(channels, …)`."""
        ordered = pixels[..., ::-1] if self.flips_channels else pixels
        scaled = ordered.astype(np.float32) * np.float32(self.scale)
        normalized = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.moveaxis(normalized, -1, 0)


@dataclass(frozen=True, slots=True)
class ImageSteps:
    """Everything that is done to an image before the model computes."""

    preprocessing: Preprocessing
    normalization: Normalization
    input_size: Size


def read_image_steps(processor: Any, num_channels: int) -> ImageSteps:
    """Read the steps of `processor`, and prove that they give the same pixels as it does.

    Args:
        processor: A transformers image processor with the PIL backend, or timm's wrapper.
        num_channels: Channels the model takes, 3 or 1.

    Raises:
        ExportError: The processor does something that cannot be reproduced exactly.
    """
    if num_channels not in {1, 3}:
        raise ExportError(f"the model takes {num_channels} channels; images have 3, or 1 if grey")
    color: Color = "RGB" if num_channels == 3 else "L"
    name = type(processor).__name__
    if isinstance(processor, TimmWrapperImageProcessor):
        steps = timm_steps(processor.data_config, color)
    else:
        _refuse_other_kinds(processor, name)
        try:
            steps = _transformers_steps(processor, color)
        except AttributeError as exc:
            raise ExportError(f"{name} has no {exc.name}; the gateway does not know it") from exc
        except (TypeError, ValueError, LookupError, ArithmeticError) as exc:
            raise ExportError(f"{name} has a setting that means nothing: {reason_of(exc)}") from exc
    _prove(steps, processor, color, name)
    return steps


def _refuse_other_kinds(processor: Any, name: str) -> None:
    """Refuse a processor without a Pillow version, or that gives the model more than pixels.

    This depends on its class, so it comes before any of its settings.
    """
    if processor.backend != "pil":
        raise without_pillow(name)
    inputs = processor.model_input_names
    if list(inputs) != [INPUT_NAME]:
        raise ExportError(
            f"{name} gives the model {', '.join(inputs)}; the gateway sends it {INPUT_NAME} of one"
            " size alone, so models of this kind cannot be exported"
        )


def _transformers_steps(processor: Any, color: Color) -> ImageSteps:
    if getattr(processor, "do_pad", None):
        raise ExportError("the image processor pads images (do_pad), which the gateway does not do")
    crops_first = isinstance(processor, PerceiverImageProcessorPil)
    preprocessing = Preprocessing(
        color=color,
        first_crop=_first_crop(processor) if crops_first else None,
        resize=None,
        resample=_filter(Image.Resampling(processor.resample).name.lower()),
        center_crop=None if crops_first else _crop_size(processor),
    )
    if processor.do_resize:
        preprocessing = preprocessing.model_copy(update=_resizing(processor))
    return ImageSteps(preprocessing, _normalization(processor), _input_size(preprocessing))


def _normalization(processor: Any) -> Normalization:
    scale = float(processor.rescale_factor) if processor.do_rescale else 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if processor.do_normalize:
        mean, std = _channels(processor.image_mean), _channels(processor.image_std)
    if isinstance(processor, EfficientNetImageProcessorPil):
        if processor.do_rescale and processor.rescale_offset:
            mean = tuple(value + 1 for value in mean)
        if processor.include_top:
            # EfficientNet's classifiers divide by the deviation a second time.
            again = _channels(processor.image_std)
            std = tuple(a * b for a, b in np.broadcast(std, again))
    flips = bool(getattr(processor, "do_flip_channel_order", False))
    return Normalization(scale, mean, std, flips)


def _resizing(processor: Any) -> dict[str, Any]:
    """Fields of `Preprocessing` for the size in the settings."""
    size = processor.size
    edge = size.shortest_edge
    if isinstance(processor, LevitImageProcessorPil) and edge:
        return {"shortest_edge": int(_LEVIT_MARGIN * edge)}
    if isinstance(processor, PoolFormerImageProcessorPil) and processor.crop_pct is not None:
        return {"shortest_edge": int((edge or size.height) / processor.crop_pct)}
    if isinstance(processor, ConvNextImageProcessorPil) and edge:
        square = Size(height=edge, width=edge)
        if edge >= _CONVNEXT_WARP_EDGE:
            return {"resize": square}
        if processor.do_center_crop:
            raise ExportError("the image processor crops twice (crop_pct and do_center_crop)")
        return {"shortest_edge": int(edge / processor.crop_pct), "center_crop": square}
    if size.longest_edge or size.max_height or size.max_pixels:
        raise ExportError(f"size {dict(size)} gives no fixed size; the gateway needs one")
    if edge:
        return {"shortest_edge": int(edge)}
    return {"resize": Size(height=size.height, width=size.width)}


def _filter(name: str) -> Resample:
    if name not in get_args(Resample):
        raise ExportError(f"the gateway does not know the resampling filter {name}")
    return cast(Resample, name)


def _crop_size(processor: Any) -> Size | None:
    if not processor.do_center_crop:
        return None
    return Size(height=processor.crop_size.height, width=processor.crop_size.width)


def _first_crop(processor: Any) -> Shares | None:
    """Perceiver's rule: before resizing, it crops `size / crop_size` of the shorter side."""
    if not processor.do_center_crop:
        return None
    size, crop = processor.size, processor.crop_size
    if size.height > crop.height or size.width > crop.width:
        raise ExportError(
            f"the image processor crops {size.width}/{crop.width} x {size.height}/{crop.height} of"
            " the shorter side, which is more than there is, and pads; the gateway does not"
        )
    return Shares(height=size.height / crop.height, width=size.width / crop.width)


def timm_steps(data_config: dict[str, Any], color: Color) -> ImageSteps:
    """The evaluation transform that timm derives from a model's `data_config`.

    Raises:
        ExportError: The gateway lacks this crop mode.
    """
    _, height, width = data_config["input_size"]
    if data_config["crop_mode"] == "squash":
        preprocessing = Preprocessing(
            color=color,
            resize=_scaled(height, width, data_config["crop_pct"]),
            resample=_filter(data_config["interpolation"]),
            center_crop=Size(height=height, width=width),
            center_crop_rounding=_TIMM_ROUNDING,
        )
    elif data_config["crop_mode"] == "center" and height == width:
        preprocessing = Preprocessing(
            color=color,
            resize=None,
            shortest_edge=_scaled(height, width, data_config["crop_pct"]).height,
            resample=_filter(data_config["interpolation"]),
            center_crop=Size(height=height, width=width),
            center_crop_rounding=_TIMM_ROUNDING,
        )
    else:
        raise ExportError(
            f"timm's crop mode {data_config['crop_mode']!r} at {height}x{width} is not something"
            " the gateway does"
        )
    normalization = Normalization(
        1 / 255, _channels(data_config["mean"]), _channels(data_config["std"])
    )
    return ImageSteps(preprocessing, normalization, _input_size(preprocessing))


def _scaled(height: int, width: int, crop_pct: float) -> Size:
    return Size(height=math.floor(height / crop_pct), width=math.floor(width / crop_pct))


def _channels(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in (values if isinstance(values, list | tuple) else [values]))


def _input_size(preprocessing: Preprocessing) -> Size:
    crop, resize, edge = (
        preprocessing.center_crop,
        preprocessing.resize,
        preprocessing.shortest_edge,
    )
    if crop is None:
        if resize is None:
            raise ExportError(
                "the image processor leaves images of different sizes; the gateway needs one"
            )
        return resize
    height, width = (edge, edge) if resize is None else (resize.height, resize.width)
    if height is None or width is None or crop.height > height or crop.width > width:
        raise ExportError(
            f"the image processor crops {crop.width}x{crop.height} out of images that can be"
            " smaller, and pads them; the gateway does not"
        )
    return crop


def _prove(steps: ImageSteps, processor: Any, color: Color, name: str) -> None:
    for image in _proof_images(color):
        if _leaves_nothing(image, steps.preprocessing.first_crop):
            continue
        try:
            wanted = np.asarray(processor(image, return_tensors="pt")["pixel_values"][0])
        except _PROCESSOR_ERRORS as exc:
            raise ExportError(
                f"{name} itself fails on a {image.width}x{image.height} image: {reason_of(exc)}"
            ) from exc
        actual = steps.normalization.apply(fit(image, steps.preprocessing))
        tolerance = _RELATIVE_TOLERANCE * max(1.0, float(np.abs(wanted).max()))
        if actual.shape != wanted.shape or not np.allclose(actual, wanted, rtol=0, atol=tolerance):
            raise ExportError(
                f"{name} does something to a {image.width}x{image.height} image that the gateway"
                " does not know; its answers would differ"
            )


def _leaves_nothing(image: Image.Image, first_crop: Shares | None) -> bool:
    """Whether a processor fails because its crop would have no pixels."""
    shorter = min(image.size)
    return first_crop is not None and (
        int(first_crop.height * shorter) == 0 or int(first_crop.width * shorter) == 0
    )


def _proof_images(color: Color) -> Iterator[Image.Image]:
    rng = np.random.default_rng(_PROOF_SEED)
    for width, height in _PROOF_SIZES:
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        yield Image.fromarray(noise).convert(color)
