"""A tuned server without Triton: `uvicorn bench.baselines.in_process_app:app`.

FastAPI, the gateway's fastest decoder in `DECODERS` threads, batches of at most `MAX_BATCH` images,
the TorchScript file `GRAPH` in this process with `THREADS` threads of torch, softmax, and the five
best labels.
"""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np
import orjson
import torch
from fastapi import FastAPI, Request, Response

from exporter.presets import PRESETS
from gateway.classification.postprocess import Prediction, rank
from gateway.concurrency import Batching
from gateway.imaging.images import decode
from gateway.modelspec import Preprocessing, Size
from gateway.runtime.process import keep_freed_memory
from gateway.tensors import Pixels

STEPS: Final = Preprocessing(resize=Size(height=224, width=224), resample="bilinear")
MAX_PIXELS: Final = 64_000_000
MAX_BATCH: Final = int(os.environ["MAX_BATCH"])

torch.set_num_threads(int(os.environ["THREADS"]))
keep_freed_memory()
app = FastAPI()
_labels = tuple(PRESETS["vit-tiny"].config["id2label"].values())
_device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_graph = torch.jit.load(os.environ["GRAPH"], map_location=_device).eval()  # type: ignore[no-untyped-call]  # torch's
_decoders = ThreadPoolExecutor(int(os.environ["DECODERS"]))
_model = ThreadPoolExecutor(1)


@torch.inference_mode()
def _forward(images: Sequence[Pixels]) -> list[list[Prediction]]:
    pixels = torch.from_numpy(np.stack(images)).to(_device)
    ranking = rank(_graph(pixels).cpu().numpy(), "softmax", 5)
    return [ranking.predictions(index, _labels) for index in range(len(images))]


async def _infer(images: Sequence[Pixels]) -> list[list[Prediction]]:
    return await asyncio.get_running_loop().run_in_executor(_model, _forward, images)


_batches: Batching[Pixels, list[Prediction]] = Batching(_infer, MAX_BATCH, 1)


@app.post("/models/{model_id:path}")
async def classify(request: Request) -> Any:
    """Labels and scores of an image."""
    body = await request.body()
    work = partial(decode, body, STEPS, MAX_PIXELS, "fast")
    pixels = await asyncio.get_running_loop().run_in_executor(_decoders, work)
    predictions = await _batches.run(pixels)
    return Response(orjson.dumps(predictions), media_type="application/json")
