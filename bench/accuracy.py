"""Compare each image mode with `transformers.pipeline`: pixels, scores, best label.

    python -m bench.accuracy --demo CHECKPOINT

On the demo's held-out digits, as PNG and as JPEG, with the demo's weights, and on parts of
photographs with random weights, for bilinear and bicubic. Prints JSON.
"""

import argparse
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor

from bench.pictures import LARGE, encoded, varied, write_picture
from exporter.preprocessing import ImageSteps, read_image_steps
from gateway.imaging.images import decode
from gateway.settings import DecodeMode
from gateway.tensors import Pixels
from tests.checkpoints import save_deit_distilled, save_vit

_MAX_PIXELS: Final = 64_000_000
_DIGITS: Final = 200
_PARTS: Final = 60


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint and the pictures it classifies."""

    name: str
    checkpoint: Path
    pictures: list[bytes]


def compare(case: Case) -> Iterator[dict[str, Any]]:
    """Compare all modes on one case; yield one row of figures for each mode."""
    processor = AutoImageProcessor.from_pretrained(case.checkpoint, backend="pil")
    classifier = transformers.pipeline(
        "image-classification",
        model=str(case.checkpoint),
        image_processor=processor,
        device="cpu",
    )
    steps = read_image_steps(processor, 3)
    wanted = [_pipeline_scores(classifier, picture) for picture in case.pictures]
    reference = [decode(p, steps.preprocessing, _MAX_PIXELS, "reference") for p in case.pictures]
    for mode in get_args(DecodeMode):
        pixels = [decode(p, steps.preprocessing, _MAX_PIXELS, mode) for p in case.pictures]
        differences = [np.abs(a.astype(int) - b) for a, b in zip(reference, pixels, strict=True)]
        scores = [_scores(classifier.model, steps, image) for image in pixels]
        pairs = list(zip(wanted, scores, strict=True))
        yield {
            "case": case.name,
            "mode": mode,
            "pictures": len(case.pictures),
            "max_pixel_difference": int(max(d.max() for d in differences)),
            "mean_pixel_difference": float(np.mean([d.mean() for d in differences])),
            "max_abs_score_difference": max(float(np.abs(a - b).max()) for a, b in pairs),
            "top1_agreement": float(np.mean([a.argmax() == b.argmax() for a, b in pairs])),
        }


@torch.inference_mode()
def _pipeline_scores(classifier: Any, picture: bytes) -> Any:
    """The pipeline's scores by class; its answer has labels, of which two may be equal."""
    inputs = classifier.preprocess(Image.open(io.BytesIO(picture)))
    return classifier.forward(inputs)["logits"].softmax(-1)[0].numpy()


@torch.inference_mode()
def _scores(model: Any, steps: ImageSteps, pixels: Pixels) -> Any:
    """The model's scores by class, for pixels of the model's input size."""
    values = torch.from_numpy(steps.normalization.apply(pixels))[None]
    return model(pixel_values=values).logits.softmax(-1)[0].numpy()


def cases(demo: Path, folder: Path) -> Iterator[Case]:
    """All checkpoints and pictures that are compared."""
    digits = sorted((demo.parent / "held-out").glob("*.png"))[:_DIGITS]
    yield Case("demo, digits as PNG", demo, [path.read_bytes() for path in digits])
    as_jpeg = [encoded(Image.open(path).convert("RGB")) for path in digits]
    yield Case("demo, digits as JPEG", demo, as_jpeg)
    parts = list(varied(_PARTS))
    vit, deit = save_vit(folder / "vit"), save_deit_distilled(folder / "deit")
    yield Case("random ViT, bilinear", vit, parts)
    yield Case("random DeiT, bicubic and crop", deit, parts)
    large = [write_picture(folder, LARGE).read_bytes()]
    yield Case("random ViT, 4000x3000", vit, large)


def main() -> None:
    """Compare all cases."""
    parser = argparse.ArgumentParser(description="Measure what the faster image modes change.")
    parser.add_argument("--demo", type=Path, required=True)
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="vitriton-bench-") as folder:
        rows = [row for case in cases(options.demo, Path(folder)) for row in compare(case)]
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
