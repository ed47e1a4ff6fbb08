"""A plain server with FastAPI and `transformers.pipeline`.

Run it as `uvicorn bench.baselines.pipeline_app:app`.

The model is a ViT whose forward pass returns constants, so the model itself costs nothing.
`THREADS` is the size of the thread pool that the blocking pipeline runs in.
"""

import asyncio
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import transformers
from fastapi import FastAPI, Request
from PIL import Image
from transformers import AutoConfig, ViTForImageClassification, ViTImageProcessorPil
from transformers.modeling_outputs import ImageClassifierOutput

from bench.models import null_logits
from exporter.presets import PRESETS


class _NullViT(ViTForImageClassification):  # type: ignore[misc]  # transformers has no types
    def forward(self, pixel_values: torch.Tensor, **_: Any) -> ImageClassifierOutput:
        logits = null_logits(self.config.num_labels)
        return ImageClassifierOutput(logits=logits.expand(pixel_values.shape[0], -1))


def _pipeline() -> Any:
    torch.set_num_threads(1)
    preset = PRESETS["vit-tiny"]
    config = AutoConfig.for_model(**preset.config)
    processor = ViTImageProcessorPil(**preset.preprocessor)
    return transformers.pipeline(
        "image-classification", model=_NullViT(config), image_processor=processor, device="cpu"
    )


app = FastAPI()
_classify = _pipeline()
_threads = ThreadPoolExecutor(int(os.environ.get("THREADS", "2")))


def _work(body: bytes) -> Any:
    return _classify(Image.open(io.BytesIO(body)))


@app.post("/models/{model_id:path}")
async def classify(request: Request) -> Any:
    """Labels and scores of an image."""
    body = await request.body()
    return await asyncio.get_running_loop().run_in_executor(_threads, _work, body)
