"""Our Triton backend fits decoded pictures within the bounds of image mode `fast`."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from deploy.triton_backend.fitting import Filter, fit
from deploy.triton_backend.pictures import Fitting
from gateway.imaging.images import decode
from gateway.imaging.jpeg_for_triton import jpeg_for_triton
from gateway.modelspec import Preprocessing
from gateway.tensors import Pixels
from tests.pictures import ORIENTATION_TAG, encode, photo

LIMIT = 10_000_000
# In grey levels, for photographs: docs/image-modes.md.
BOUNDS: dict[Filter, int] = {"bilinear": 1, "bicubic": 5}
STEPS: dict[str, dict[str, object]] = {
    "exact size": {"resize": {"height": 224, "width": 224}},
    "enlarged": {"resize": {"height": 700, "width": 900}},
    "one axis": {"resize": {"height": 427, "width": 224}},
    "not resized": {"resize": None},
    "shorter side and crop": {
        "resize": None,
        "shortest_edge": 256,
        "center_crop": {"height": 224, "width": 224},
    },
    "larger than exact and crop": {
        "resize": {"height": 248, "width": 249},
        "center_crop": {"height": 224, "width": 224},
    },
    "grey": {"resize": {"height": 224, "width": 224}, "color": "L"},
}


def fitted(data: bytes, steps: Preprocessing, resample: Filter, shape: tuple[int, ...]) -> Pixels:
    """What the backend makes of a JPEG and the gateway's plan; Pillow decodes in its place."""
    file = jpeg_for_triton(data, steps, LIMIT)
    assert file is not None, "the gateway would decode this picture itself"
    stored = np.array(Image.open(io.BytesIO(file.data)).convert("RGB"))
    fitting = Fitting(
        file.width, file.height, *file.resized, turn=file.turn, left=file.left, top=file.top
    )
    height, width, channels = shape
    pixels = torch.from_numpy(stored)[None]
    result: Pixels = fit(pixels, fitting, resample, (height, width), channels)[0].numpy()
    return result


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("what", STEPS)
@pytest.mark.parametrize("resample", BOUNDS)
def test_photographs_are_within_the_bounds_of_pillow(
    resample: Filter, what: str, orientation: int
) -> None:
    """For every plan and every EXIF orientation the result is that of mode `reference`, nearly."""
    steps = Preprocessing.model_validate({"resample": resample, **STEPS[what]})
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    data = encode(Image.open(io.BytesIO(photo("flower"))), "JPEG", quality=92, exif=exif)

    wanted = decode(data, steps, LIMIT, "reference")
    got = fitted(data, steps, resample, wanted.shape)

    assert got.shape == wanted.shape
    assert np.abs(wanted.astype(int) - got).max() <= BOUNDS[resample]


def test_pictures_of_a_group_are_fitted_as_alone() -> None:
    """A picture is the same whether it is fitted alone or with others of its size."""
    random = torch.Generator().manual_seed(0)
    group = torch.randint(0, 256, (5, 90, 120, 3), dtype=torch.uint8, generator=random)
    steps = Fitting(120, 90, 64, 48, turn=5, left=3, top=2)

    together = fit(group, steps, "bicubic", (50, 40), 3)

    assert together.shape == (5, 50, 40, 3)
    for one, picture in zip(together, group, strict=True):
        assert torch.equal(one, fit(picture[None], steps, "bicubic", (50, 40), 3)[0])
