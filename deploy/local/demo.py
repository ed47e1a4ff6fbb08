"""Train the demo model `vitriton/vit-digits`: a small real ViT, on one processor.

The result is an ordinary transformers folder that goes through the exporter like any other.
"""

import errno
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from deploy.local.demo_folder import (
    RECIPE_FILE,
    checkpoint_of,
    explain_demo_errors,
    is_trained,
    recipe,
    refuse_unwritable_demo,
)
from deploy.local.digits import Digit, load_split, write_pictures
from deploy.local.errors import LocalError
from exporter.checkpoint import quiet_libraries

log = logging.getLogger("vitriton")

# A trained model whose accuracy on the held-out third is lower is refused.
MIN_ACCURACY: Final = 0.97

_SEED: Final = 0
_IMAGE_SIDE: Final = 32
_EPOCHS: Final = 40
_BATCH: Final = 32
_PEAK_LEARNING_RATE: Final = 2e-3
_WARMUP_SHARE: Final = 0.1
_MAX_SHIFT: Final = 2

_CONFIG: Final = {
    "image_size": _IMAGE_SIDE,
    "patch_size": 8,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    # transformers' 0.02 is for wide models; at this width training starts far too slowly.
    "initializer_range": 0.05,
    "id2label": {i: str(i) for i in range(10)},
    "label2id": {str(i): i for i in range(10)},
}


def prepare_demo(folder: Path) -> Path:
    """Return the demo's checkpoint folder; train the model and draw its pictures if need be.

    Raises:
        LocalError: The folder cannot be written to, or training did not reach `MIN_ACCURACY`.
    """
    refuse_unwritable_demo(folder)
    with explain_demo_errors(folder):
        if not is_trained(folder):
            _make(folder)
    return checkpoint_of(folder)


def _make(folder: Path) -> None:
    log.info("training the demo on scikit-learn's handwritten digits, about half a minute")
    training, held_out = load_split()
    write_pictures(held_out, folder)
    model, accuracy = _train(training, held_out)
    if accuracy < MIN_ACCURACY:
        raise LocalError(
            f"the demo model reached {accuracy:.1%} on held-out digits, below {MIN_ACCURACY:.0%};"
            " please report this with your processor and torch version"
        )
    log.info("trained: %.1f %% of %d held-out digits right", accuracy * 100, len(held_out))
    unfinished, checkpoint = folder / "checkpoint.unfinished", checkpoint_of(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    _save(model, unfinished)
    (unfinished / RECIPE_FILE).write_text(recipe())
    shutil.rmtree(checkpoint, ignore_errors=True)
    unfinished.rename(checkpoint)


def _save(model: ViTForImageClassification, folder: Path) -> None:
    try:
        # transformers would show a progress bar for one small file.
        with quiet_libraries():
            model.save_pretrained(folder)
    except SafetensorError as exc:
        # safetensors reports an error of the system in words of its own.
        raise OSError(errno.EIO, str(exc), str(folder)) from exc
    _processor().save_pretrained(folder)


def _train(training: list[Digit], held_out: list[Digit]) -> tuple[ViTForImageClassification, float]:
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(_SEED)
        model = ViTForImageClassification(ViTConfig(**_CONFIG))
        pixels, labels = _tensors(training)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
        steps_per_epoch = -(-len(labels) // _BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            _PEAK_LEARNING_RATE,
            total_steps=_EPOCHS * steps_per_epoch,
            pct_start=_WARMUP_SHARE,
        )
        model.train()
        for _ in tqdm(range(_EPOCHS), desc="train vit-digits", unit="epoch", disable=None):
            for chosen in torch.randperm(len(labels)).split(_BATCH):
                loss = model(pixel_values=_shifted(pixels[chosen]), labels=labels[chosen]).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    model.eval()
    pixels, labels = _tensors(held_out)
    with torch.inference_mode():
        predicted = model(pixel_values=pixels).logits.argmax(-1)
    return model, (predicted == labels).float().mean().item()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute the block with one thread.

    Several threads would wait for each other at each of these small operations. On a busy machine
    each wait lasts until the other thread gets a processor, and training takes minutes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(
        size={"height": _IMAGE_SIDE, "width": _IMAGE_SIDE},
        resample=Image.Resampling.BILINEAR,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def _tensors(drawn: list[Digit]) -> tuple[torch.Tensor, torch.Tensor]:
    processed = _processor()([digit.picture for digit in drawn])["pixel_values"]
    return torch.from_numpy(np.stack(processed)), torch.tensor([digit.label for digit in drawn])


def _shifted(pixels: torch.Tensor) -> torch.Tensor:
    """Move each picture by a random number of pixels, of shape `(batch, 3, side, side)`.

    Pixels that leave at one edge enter at the opposite one; there is only paper at the edges.
    """
    shifts = torch.randint(-_MAX_SHIFT, _MAX_SHIFT + 1, (len(pixels), 2))
    positions = torch.arange(_IMAGE_SIDE)
    rows = (positions - shifts[:, :1]) % _IMAGE_SIDE
    columns = (positions - shifts[:, 1:]) % _IMAGE_SIDE
    images = torch.arange(len(pixels))[:, None, None]
    return pixels[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
