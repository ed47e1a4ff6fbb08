"""Decode JPEGs with nvImageCodec: by the GPU's JPEG engines, else by what works on the machine."""

import base64
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from .pictures import Bytes

# 64x64 pixels, baseline, 4:2:0: what every decoder here must decode.
_PROBE: Final = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////"
    "////////////////////////////////2wBDAVVaWnhpeOuCguv/////////////////////////////////////"
    "////////////////////////////////////wAARCABAAEADASIAAhEBAxEB/8QAFwABAQEBAAAAAAAAAAAAAAAA"
    "AQACBP/EABUQAQEAAAAAAAAAAAAAAAAAAAAR/8QAFwEBAQEBAAAAAAAAAAAAAAAAAwIEAf/EABURAQEAAAAAAAAA"
    "AAAAAAAAAAEA/9oADAMBAAIRAxEAPwDmhhhjStwbMMMMGtYxFDDBrIMRRqKDWsbMMMUalsQxDDDBrWNmGGGDWQbM"
    "MMMGtY2Yo1FGpbEMRRqKDWQYhhhg1rGzDDDBrINiGGGNS2IYijUUGtYxFGooNZBiGGKDWsb/2Q=="
)
_PROBE_SHAPE: Final = (64, 64, 3)
_STDERR: Final = 2


class DecoderMissing(RuntimeError):
    """No decoder of nvImageCodec works here."""


class _Decoder(NamedTuple):
    name: str
    decode: Callable[[Sequence[Any]], Sequence[Any]]


class JpegDecoder:
    """Decodes batches of JPEGs; a file that one decoder refuses goes to the next one."""

    def __init__(self, device: torch.device, threads: int) -> None:
        """Find the decoders that work.

        Args:
            device: Where the decoded pictures shall be.
            threads: Threads for decoding on the CPU.

        Raises:
            DecoderMissing: nvImageCodec is not installed, or none of its decoders works.
        """
        self._device = device
        self._codec = _load_codec()
        self._decoders = list(self._working(threads))
        if not self._decoders:
            raise DecoderMissing("nvImageCodec decodes no JPEG on this machine")

    @property
    def names(self) -> list[str]:
        """The decoders, in the order in which a file is given to them."""
        return [decoder.name for decoder in self._decoders]

    def decode(self, files: Sequence[Bytes]) -> list[torch.Tensor | None]:
        """The pictures, each `(height, width, 3)`, uint8, RGB, as stored; None for a bad file.

        EXIF orientation is not applied.
        """
        pictures: list[torch.Tensor | None] = [None] * len(files)
        left = list(range(len(files)))
        for decoder in self._decoders:
            if not left:
                break
            streams = [self._codec.CodeStream(files[index]) for index in left]
            for index, image in zip(left, _images(decoder, streams), strict=True):
                pictures[index] = None if image is None else self._tensor(image)
            left = [index for index in left if pictures[index] is None]
        return pictures

    def _working(self, threads: int) -> Iterator[_Decoder]:
        kinds, cpu = self._codec.BackendKind, self._codec.NVIMGCODEC_DEVICE_CPU_ONLY
        index = self._device.index or 0
        candidates: list[tuple[str, int, list[Any] | None]] = [("CPU_ONLY", cpu, [kinds.CPU_ONLY])]
        if self._device.type == "cuda":
            # Without a list nvImageCodec chooses among its decoders itself, those for CPUs too.
            candidates = [
                ("HW_GPU_ONLY", index, [kinds.HW_GPU_ONLY]),
                ("any", index, None),
                *candidates,
            ]
        for name, device, allowed in candidates:
            decoder = self._made(name, device, allowed, threads)
            if decoder is not None:
                yield decoder
            # Those for CPUs are the last resort where `any` works too, and `any` has them.
            if decoder is not None and name == "any":
                return

    def _made(
        self, name: str, device: int, allowed: list[Any] | None, threads: int
    ) -> _Decoder | None:
        """The decoder, or none if it does not decode the probe."""
        codec = self._codec
        backends = None if allowed is None else [codec.Backend(kind) for kind in allowed]
        params = codec.DecodeParams(apply_exif_orientation=False, sample_format=codec.I_RGB)
        try:
            decoder = codec.Decoder(
                device_id=device, max_num_cpu_threads=threads, backends=backends
            )
            made = _Decoder(name, lambda streams: decoder.decode(streams, params=params))
            (image,) = made.decode([codec.CodeStream(np.frombuffer(_PROBE, np.uint8))])
        except RuntimeError:
            return None
        return made if image is not None and tuple(image.shape) == _PROBE_SHAPE else None

    def _tensor(self, image: Any) -> torch.Tensor:
        if image.buffer_kind == self._codec.ImageBufferKind.STRIDED_HOST:
            return torch.from_numpy(np.asarray(image)).to(self._device)
        picture: torch.Tensor = from_dlpack(image)
        return picture


def _images(decoder: _Decoder, streams: Sequence[Any]) -> Sequence[Any]:
    """The decoded images; None for each if the decoder fails as a whole, out of memory say."""
    try:
        return decoder.decode(streams)
    except RuntimeError:
        return [None] * len(streams)


def _load_codec() -> Any:
    # nvImageCodec would write a line for each damaged file that a client sends.
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
    try:
        with _without_stderr():
            return importlib.import_module("nvidia.nvimgcodec")
    except ImportError as exc:
        raise DecoderMissing(
            f"nvImageCodec cannot be imported ({exc}); pip install 'vitriton[gpu]', or"
            " serve the model by its configuration `gpu`"
        ) from exc


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Drop what C libraries write: nvImageCodec names libraries for formats that nobody sends."""
    kept = os.dup(_STDERR)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), _STDERR)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
