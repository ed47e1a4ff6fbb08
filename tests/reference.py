"""Compute the answers of transformers, with which tests compare the service."""

import io
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image
from transformers import AutoImageProcessor, pipeline

# More labels than any test model has, so that tests compare all.
ALL_LABELS: Final = 100


@cache
def _pipeline(checkpoint: Path, dtype: str) -> Any:
    processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    return pipeline(
        "image-classification", model=str(checkpoint), image_processor=processor, dtype=dtype
    )


def expected(
    checkpoint: Path, picture: bytes, dtype: str = "auto", **parameters: Any
) -> list[dict[str, Any]]:
    """Answer of `transformers.pipeline` on the same weights, with its PIL image processor.

    The pipeline computes in `dtype`, by default the precision of the checkpoint.
    """
    answer: list[dict[str, Any]] = _pipeline(checkpoint, dtype)(
        Image.open(io.BytesIO(picture)), **parameters
    )
    return answer
