"""Tiny models with transformers' interface, each with a fault that an export must find."""

from types import SimpleNamespace
from typing import Any

import torch

from exporter.preprocessing import ImageSteps, Normalization
from exporter.sample import (
    Float64Logits,
    Sample,
    batch_sizes_to_verify,
    eager_logits,
    images_to_verify,
    sample_images,
)
from gateway.modelspec import Preprocessing, Size

MAX_BATCH = 8
SIZES = batch_sizes_to_verify(MAX_BATCH, may_skip_sizes=False)
SIZE = Size(height=16, width=16)
STEPS = ImageSteps(
    Preprocessing(resize=SIZE, resample="bilinear"),
    Normalization(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    SIZE,
)


def sample_of(model: Any) -> Sample:
    images = sample_images(images_to_verify(MAX_BATCH), STEPS)
    expected = eager_logits(model, STEPS, images)
    return Sample(images, expected, SIZES, Float64Logits(model, STEPS, images))


class Classifier(torch.nn.Module):
    """A tiny model with transformers' interface; subclasses plant a fault."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3 * 16 * 16, 5)

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits(pixel_values))

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(pixels.flatten(1))  # type: ignore[no-any-return]  # torch


class BranchOnContent(Classifier):
    """The trace keeps the branch that its example took."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = super().logits(pixels)
        return logits * 2 if bool(pixels.mean() > -0.9) else logits


class CoupledBatch(Classifier):
    """An image's logits depend on its neighbours."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = super().logits(pixels)
        return logits - logits.mean(0, keepdim=True) * 0.01


class BakedBatch(Classifier):
    """The batch size of the trace is a constant of the graph."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().logits(pixels.reshape(int(pixels.shape[0]), -1))


class MakesTensors(Classifier):
    """A tensor is made on the device of the input, which a trace records as the CPU."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().logits(pixels) + torch.zeros(pixels.shape[0], 5, device=pixels.device)


class NanOnBright(Classifier):
    """The logits of one picture are not finite."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().logits(pixels) + torch.log(-pixels.mean((1, 2, 3)))[:, None]


class Untraceable(Classifier):
    """The model raises an error when it is traced."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        if torch._C._get_tracing_state() is not None:
            raise RuntimeError("data-dependent from here on\nand more")
        return super().logits(pixels)


class Maps(Classifier):
    """The model returns logits for each place of the picture, not for the whole."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels
