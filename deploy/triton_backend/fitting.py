"""Resize, turn and crop decoded pictures on the device where they are.

torch's antialiased `interpolate` has Pillow's kernels and computes in float32. Rounded between its
passes as Pillow does, it is nearer to Pillow than image mode `fast`: docs/image-modes.md. The
gateway plans the steps, so this module only follows them.
"""

from typing import Final, Literal

import torch

from .pictures import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE, Fitting

Filter = Literal["bilinear", "bicubic"]

# ITU-R 601-2 luma as Pillow computes it, in units of 2**-16.
_LUMA: Final = (19595, 38470, 7471)
_LUMA_HALF: Final = 1 << 15
_LUMA_BITS: Final = 16


def fit(
    pictures: torch.Tensor, steps: Fitting, resample: Filter, size: tuple[int, int], channels: int
) -> torch.Tensor:
    """Make pictures of one size the input of the model.

    Args:
        pictures: `(n, height, width, 3)`, uint8, RGB, as they are stored.
        steps: The same for all of them.
        resample: Filter for resizing.
        size: Height and width that the model takes.
        channels: 3 for RGB, 1 for grey.

    Returns:
        `(n, height, width, channels)`, uint8, on the device of `pictures`; maybe a view.
    """
    if channels == 1:
        pictures = _grey(pictures)
    planes = _resized(pictures.permute(0, 3, 1, 2), steps, resample)
    if steps.turn & TRANSPOSE:
        planes = planes.transpose(2, 3)
    flipped = [axis for bit, axis in ((FLIP_ROWS, 2), (FLIP_COLUMNS, 3)) if steps.turn & bit]
    if flipped:
        planes = planes.flip(flipped)
    height, width = size
    rows = slice(steps.top, steps.top + height)
    return planes[:, :, rows, steps.left : steps.left + width].permute(0, 2, 3, 1)


def _grey(pictures: torch.Tensor) -> torch.Tensor:
    red, green, blue = (
        channel.to(torch.int32) * weight
        for channel, weight in zip(pictures.unbind(-1), _LUMA, strict=True)
    )
    return (((red + green + blue + _LUMA_HALF) >> _LUMA_BITS).to(torch.uint8))[..., None]


def _resized(planes: torch.Tensor, steps: Fitting, resample: Filter) -> torch.Tensor:
    height, width = planes.shape[2:]
    wanted = steps.resized_height, steps.resized_width
    if (height, width) == wanted:
        return planes
    # Pillow rounds between its two passes, which also cuts off what a bicubic kernel overshoots.
    # It makes the rows of the upright picture narrower first.
    first = (wanted[0], width) if steps.turn & TRANSPOSE else (height, wanted[1])
    narrowed = _rounded(_interpolated(planes.to(torch.float32), first, resample))
    return _rounded(_interpolated(narrowed, wanted, resample)).to(torch.uint8)


def _interpolated(planes: torch.Tensor, size: tuple[int, int], resample: Filter) -> torch.Tensor:
    if tuple(planes.shape[2:]) == size:
        return planes
    return torch.nn.functional.interpolate(
        planes, size, mode=resample, align_corners=False, antialias=True
    )


def _rounded(planes: torch.Tensor) -> torch.Tensor:
    """Grey levels as Pillow rounds them, half up."""
    return planes.add_(0.5).floor_().clamp_(0, 255)
