"""Measure nvImageCodec's decoders without a server, and compare their pixels with Pillow's.

    python -m bench.gpu.jpeg PICTURE --batches 1 8 64 128 --seconds 0.5

Prints one line of JSON for each decoder and kind of JPEG with the difference in grey levels, and
one for each decoder and batch size. Without a GPU it measures the decoder for the CPU.
"""

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from bench.gpu.timing import device, speed
from deploy.triton_backend.decoding import ANY, CPU, ENGINES, DecoderMissing, JpegDecoder

# What decodes on the CPU has these threads: half, as for each of two instances of a model.
_THREADS: Final = max(1, torch.get_num_threads() // 2)
_QUALITY: Final = 90
# Pillow's numbers of the kinds of chroma subsampling.
_SUBSAMPLING: Final = {"4:2:0": 2, "4:2:2": 1, "4:4:4": 0}


def kinds(picture: bytes) -> dict[str, bytes]:
    """The picture as JPEGs of each kind of subsampling, and in grey."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    found = {name: _encoded(image, subsampling=n) for name, n in _SUBSAMPLING.items()}
    return found | {"grey": _encoded(image.convert("L"))}


def _encoded(image: Image.Image, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY, **options)
    return out.getvalue()


def decoders() -> Iterator[tuple[str, JpegDecoder | DecoderMissing]]:
    """Our backend's decoders alone, by name; the error of one that does not work here."""
    for name in (ENGINES, ANY) if torch.cuda.is_available() else (CPU,):
        try:
            yield name, JpegDecoder(device(), _THREADS, only=name)
        except DecoderMissing as exc:
            yield name, exc


def difference(decoder: JpegDecoder, jpeg: bytes) -> dict[str, Any]:
    """Largest and mean difference from Pillow's pixels in grey levels, or that it is refused."""
    (decoded,) = decoder.decode([np.frombuffer(jpeg, np.uint8)])
    if decoded is None:
        return {"error": "not decoded"}
    wanted = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    pixels = decoded.cpu().numpy()
    if pixels.shape != wanted.shape:
        return {"error": f"decoded to the shape {pixels.shape}"}
    levels = np.abs(pixels - wanted)
    return {"max": int(levels.max()), "mean": float(levels.mean())}


def rows(picture: bytes, batches: list[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield all rows."""
    for name, decoder in decoders():
        if isinstance(decoder, DecoderMissing):
            yield {"decoder": name, "kind": "any", "error": str(decoder)}
            continue
        for kind, jpeg in kinds(picture).items():
            yield {"decoder": name, "kind": kind} | difference(decoder, jpeg)
        for batch in batches:
            yield {"decoder": name, "batch": batch} | _speed(decoder, picture, batch, seconds)


def _speed(decoder: JpegDecoder, picture: bytes, batch: int, seconds: float) -> dict[str, Any]:
    jpegs = [np.frombuffer(picture, np.uint8)] * batch
    if any(image is None for image in decoder.decode(jpegs)):
        return {"error": "not decoded"}
    return speed(lambda: decoder.decode(jpegs), batch, seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure JPEG decoding without a server.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    for row in rows(options.picture.read_bytes(), options.batches, options.seconds):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
