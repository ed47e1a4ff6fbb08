"""Measure ways to resize decoded pictures on the device, and compare their pixels with Pillow's.

    python -m bench.gpu.resize PICTURE --batches 8 64 --seconds 0.5

Each batch is measured with pictures of one size and of mixed sizes. Prints one line of JSON for
each way, filter, kind of batch and batch size. CV-CUDA is measured where `cvcuda` can be imported.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from bench.gpu.timing import device, speed
from deploy.triton_backend.fitting import Filter, fit
from deploy.triton_backend.pictures import Fitting

TORCH: Final = "torch, each size at once"
TORCH_SINGLE: Final = "torch, one by one"
CV_CUDA: Final = "CV-CUDA pillowresize"

_EDGE: Final = 224
_FILTERS: Final[dict[Filter, Image.Resampling]] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_SIZES: Final = {
    "one size": [(500, 375)],
    "mixed sizes": [
        *((500, 375), (375, 500), (640, 480), (320, 240)),
        *((1024, 768), (300, 300), (800, 533), (256, 192)),
    ],
}

_Resize = Callable[[Sequence[torch.Tensor], Filter], torch.Tensor]
"""From pictures `(height, width, 3)` and a filter to `(n, 224, 224, 3)`, all uint8."""


def torch_at_once(images: Sequence[torch.Tensor], resample: Filter) -> torch.Tensor:
    """Our backend's way: torch's antialiased filter for all pictures of a size at once."""
    by_size: dict[torch.Size, list[int]] = {}
    for n, image in enumerate(images):
        by_size.setdefault(image.shape, []).append(n)
    resized = torch.empty((len(images), _EDGE, _EDGE, 3), dtype=torch.uint8, device=device())
    for (height, width, _), places in by_size.items():
        steps = Fitting(width, height, _EDGE, _EDGE, turn=0, left=0, top=0)
        batch = torch.stack([images[n] for n in places])
        resized[places] = fit(batch, steps, resample, (_EDGE, _EDGE), 3)
    return resized


def torch_one_by_one(images: Sequence[torch.Tensor], resample: Filter) -> torch.Tensor:
    """Call torch's antialiased filter once for each picture."""
    return torch.cat([torch_at_once([image], resample) for image in images])


def cv_cuda() -> _Resize:
    """CV-CUDA's filter after Pillow, called once for all pictures.

    Raises:
        ImportError: `cvcuda` is not installed, or there is no GPU.
    """
    import cvcuda  # noqa: PLC0415 - optional

    filters = {"bilinear": cvcuda.Interp.LINEAR, "bicubic": cvcuda.Interp.CUBIC}

    def resize(images: Sequence[torch.Tensor], resample: Filter) -> torch.Tensor:
        batch = cvcuda.ImageBatchVarShape(len(images))
        batch.pushback([cvcuda.as_image(image, cvcuda.Format.RGB8) for image in images])
        sizes = [(_EDGE, _EDGE)] * len(images)
        resized = cvcuda.pillowresize(batch, sizes, interp=filters[resample])
        return torch.stack([torch.as_tensor(image.cuda(), device=device()) for image in resized])

    return resize


def ways() -> Iterator[tuple[str, _Resize | str]]:
    """Ways to resize, or the reason why one is not here."""
    yield TORCH, torch_at_once
    yield TORCH_SINGLE, torch_one_by_one
    try:
        yield CV_CUDA, cv_cuda()
    except ImportError as exc:
        yield CV_CUDA, f"cvcuda cannot be imported: {exc}"


def difference(resize: _Resize, images: Sequence[Image.Image], resample: Filter) -> dict[str, Any]:
    """Largest and mean difference from Pillow in grey levels."""
    wanted = [np.asarray(im.resize((_EDGE, _EDGE), _FILTERS[resample])) for im in images]
    resized = resize([_on_device(image) for image in images], resample).cpu().numpy()
    levels = np.abs(resized.astype(int) - np.stack(wanted))
    return {"max": int(levels.max()), "mean": float(levels.mean())}


def _on_device(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).to(device())


def rows(picture: Path, batches: list[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield all rows; a way that is not here or fails has an `error`."""
    with Image.open(picture) as opened:
        photo = opened.convert("RGB")
    for way, resize in ways():
        if isinstance(resize, str):
            yield {"way": way, "error": resize}
            continue
        for name, sizes in _SIZES.items():
            images = [photo.resize(size, Image.Resampling.LANCZOS) for size in sizes]
            try:
                yield from _rows(way, resize, images, (batches, seconds, name))
            except (AttributeError, RuntimeError, TypeError, ValueError) as exc:
                yield {"way": way, "sizes": name, "error": str(exc).splitlines()[0]}


def _rows(
    way: str, resize: _Resize, images: list[Image.Image], plan: tuple[list[int], float, str]
) -> Iterator[dict[str, Any]]:
    batches, seconds, name = plan
    for resample in _FILTERS:
        yield {"way": way, "sizes": name, "filter": resample} | difference(resize, images, resample)
    for batch in batches:
        pictures = [_on_device(image) for image in islice(cycle(images), batch)]
        yield {"way": way, "sizes": name, "batch": batch} | speed(
            lambda pictures=pictures: resize(pictures, "bilinear"),  # type: ignore[misc]  # bound
            batch,
            seconds,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure resizing without a server.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    with torch.inference_mode():
        for row in rows(options.picture, options.batches, options.seconds):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
