"""What transformers itself answers."""

import io
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image
from transformers import AutoImageProcessor, pipeline

# More than any test model has: every label is compared.
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

    It computes in `dtype`, by default the checkpoint's own.
    """
    answer: list[dict[str, Any]] = _pipeline(checkpoint, dtype)(
        Image.open(io.BytesIO(picture)), **parameters
    )
    return answer
