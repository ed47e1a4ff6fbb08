"""Gather the inputs of several requests into one batch on the model's device."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch

from .decoding import PROBE, PROBE_SIZE, JpegDecoder
from .fitting import Filter, fit
from .graphs import ServedGraph
from .pictures import Fitting, Picture, unpack

# Pixels of decoded pictures that are in memory at the same time: 72 MB as bytes, and eight times as
# much while pictures of one size are resized.
_MAX_PIXELS_AT_ONCE: Final = 24_000_000


class Batch(NamedTuple):
    """The images of some requests, on the device."""

    images: torch.Tensor
    """`(images, height, width, channels)`, uint8."""
    rows: torch.Tensor | None
    """Row of each image, in the order of the requests; None if that is their order already."""
    undecodable: list[int]
    """Positions, in the order of the requests, of images that could not be decoded."""
    bad_jpegs: int = 0
    """How many of those are JPEGs; the others are empty, as in Triton's warm-up."""


class Gathering(Protocol):
    """How the images of requests become a batch."""

    def gather(self, inputs: Sequence[torch.Tensor]) -> Batch:
        """The batch of all images.

        Args:
            inputs: One tensor for each request; the first dimension is its number of images.
        """


class PixelGathering:
    """For a model whose input is pixels, `(images, height, width, channels)`."""

    def __init__(self, graph: ServedGraph, device: torch.device) -> None:
        self._graph = graph
        self._device = device
        self._pinned: torch.Tensor | None = None

    def gather(self, inputs: Sequence[torch.Tensor]) -> Batch:
        """The batch; on a CPU the images of a single request are not copied."""
        return Batch(self._images(inputs), None, [])

    def _images(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if self._device.type == "cpu":
            if len(inputs) == 1:
                return inputs[0]
            # torch.cat would wake the model's threads for a small copy, and they spin for a
            # millisecond before they sleep again.
            return torch.from_numpy(np.concatenate([images.numpy() for images in inputs]))
        count = sum(len(images) for images in inputs)
        pinned = self._pinned_buffer(count, inputs[0])
        torch.cat(list(inputs), out=pinned)
        return self._graph.inputs(count).copy_(pinned, non_blocking=True)

    def _pinned_buffer(self, count: int, like: torch.Tensor) -> torch.Tensor:
        """Page-locked memory for `count` images, which the GPU reads by itself.

        Every batch uses the same memory: the logits of a batch arrive after its images have been
        read, so the next batch cannot overwrite images that are still being read.
        """
        if self._pinned is None or len(self._pinned) < count:
            self._pinned = torch.empty((count, *like.shape[1:]), dtype=like.dtype, pin_memory=True)
        return self._pinned[:count]


class FileGathering:
    """For a model whose input is files: JPEGs, or pixels of what the gateway has decoded."""

    def __init__(self, graph: ServedGraph, decoder: JpegDecoder, resample: Filter) -> None:
        self._graph = graph
        self._decoder = decoder
        self._resample = resample

    def warm_up(self) -> None:
        """Decode and resize once, so that no request waits until a GPU has loaded the kernels."""
        shape = self._graph.inputs(1).shape[1:]
        # One more than the model takes, as a picture of the right size would not be resized.
        steps = Fitting(*PROBE_SIZE, shape[1] + 1, shape[0] + 1, turn=0, left=0, top=0)
        list(self._fitted([Picture(PROBE, steps)], shape))

    def gather(self, inputs: Sequence[torch.Tensor]) -> Batch:
        """Decode, fit and gather; a bad picture does not disturb the others."""
        pictures = [picture for packed in inputs for picture in unpack(packed.numpy())]
        images = self._graph.inputs(len(pictures))
        # The position of the picture in each row. What is resized together has neighbouring rows.
        order: list[int] = []
        for found, fitted in self._fitted(pictures, images.shape[1:]):
            images[len(order) : len(order) + len(found)] = fitted
            order += found
        undecodable = sorted(set(range(len(pictures))) - set(order))
        images[len(order) :] = 0
        rows = torch.tensor([*order, *undecodable]).argsort()
        bad_jpegs = sum(pictures[at].is_jpeg for at in undecodable)
        return Batch(images, rows, undecodable, bad_jpegs)

    def _fitted(
        self, pictures: Sequence[Picture], shape: torch.Size
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Positions of pictures, and the pictures as the model takes them, `(n, *shape)`."""
        size = shape.numel()
        raw = [at for at, p in enumerate(pictures) if not p.is_jpeg and len(p.data) == size]
        if raw:
            yield (
                raw,
                torch.from_numpy(np.stack([pictures[at].data for at in raw])).view(-1, *shape),
            )
        for chunk in chunks(pictures):
            decoded = self._decoder.decode([pictures[at].data for at in chunk])
            groups: dict[Fitting, list[tuple[int, torch.Tensor]]] = {}
            for at, picture in zip(chunk, decoded, strict=True):
                steps = pictures[at].fitting
                if picture is not None and picture.shape[:2] == (steps.height, steps.width):
                    groups.setdefault(steps, []).append((at, picture))
            for steps, group in groups.items():
                fitted = self._fitted_group([picture for _, picture in group], steps, shape)
                if fitted is not None:
                    yield [at for at, _ in group], fitted

    def _fitted_group(
        self, pictures: list[torch.Tensor], steps: Fitting, shape: torch.Size
    ) -> torch.Tensor | None:
        """Pictures of one size as the model takes them; None if that cannot be done here."""
        height, width, channels = shape
        try:
            together = torch.stack(pictures)
            fitted = fit(together, steps, self._resample, (height, width), channels)
        except RuntimeError:
            # torch refuses very large factors on a GPU, and a GPU may be out of memory. The gateway
            # then decodes these pictures, and the others in the batch are answered.
            return None
        return fitted if fitted.shape[1:] == shape else None


def chunks(pictures: Sequence[Picture]) -> Iterator[list[int]]:
    """Positions of the JPEGs, as many at a time as may be in memory together."""
    chunk: list[int] = []
    pixels = 0
    for at, picture in enumerate(pictures):
        if not picture.is_jpeg:
            continue
        own = picture.fitting.width * picture.fitting.height
        if chunk and pixels + own > _MAX_PIXELS_AT_ONCE:
            yield chunk
            chunk, pixels = [], 0
        chunk.append(at)
        pixels += own
    if chunk:
        yield chunk
