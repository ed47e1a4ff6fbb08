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
PROBE: Final = np.frombuffer(
    base64.b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////"
        "////////////////////////////////2wBDAVVaWnhpeOuCguv/////////////////////////////////////"
        "////////////////////////////////////wAARCABAAEADASIAAhEBAxEB/8QAFwABAQEBAAAAAAAAAAAAAAAA"
        "AQACBP/EABUQAQEAAAAAAAAAAAAAAAAAAAAR/8QAFwEBAQEBAAAAAAAAAAAAAAAAAwIEAf/EABURAQEAAAAAAAAA"
        "AAAAAAAAAAEA/9oADAMBAAIRAxEAPwDmhhhjStwbMMMMGtYxFDDBrIMRRqKDWsbMMMUalsQxDDDBrWNmGGGDWQbM"
        "MMMGtY2Yo1FGpbEMRRqKDWQYhhhg1rGzDDDBrINiGGGNS2IYijUUGtYxFGooNZBiGGKDWsb/2Q=="
    ),
    np.uint8,
)
PROBE_SIZE: Final = (64, 64)
_STDERR: Final = 2

ENGINES: Final = "HW_GPU_ONLY"
ANY: Final = "any"
CPU: Final = "CPU_ONLY"
DECODERS: Final = (ENGINES, ANY, CPU)
"""In the order in which a file is given to them."""


class DecoderMissing(RuntimeError):
    """No decoder of nvImageCodec works here."""


class _Decoder(NamedTuple):
    name: str
    decode: Callable[[Sequence[Any]], Sequence[Any]]


class JpegDecoder:
    """Decodes batches of JPEGs; a file that one decoder refuses goes to the next one."""

    def __init__(self, device: torch.device, threads: int, only: str | None = None) -> None:
        """Find the decoders that work.

        Args:
            device: Where the decoded pictures shall be.
            threads: Threads for decoding on the CPU.
            only: Use no other than the one of `DECODERS` with this name.

        Raises:
            DecoderMissing: nvImageCodec is not installed, or none of its decoders works.
        """
        self._device = device
        self._codec = _load_codec()
        self._decoders = list(self._working(threads, DECODERS if only is None else (only,)))
        if not self._decoders:
            how = "" if only is None else f" by {only}"
            raise DecoderMissing(f"nvImageCodec decodes no JPEG on this machine{how}")

    @property
    def names(self) -> list[str]:
        """The decoders, in the order in which a file is given to them."""
        return [decoder.name for decoder in self._decoders]

    def decode(self, files: Sequence[Bytes]) -> list[torch.Tensor | None]:
        """The pictures, each `(height, width, 3)`, uint8, RGB, as stored; None for a bad file.

        EXIF orientation is not applied.
        """
        pictures: list[torch.Tensor | None] = [None] * len(files)
        for decoder in self._decoders:
            left = [index for index, picture in enumerate(pictures) if picture is None]
            if not left:
                break
            try:
                streams = [self._codec.CodeStream(files[index]) for index in left]
                for index, image in zip(left, decoder.decode(streams), strict=True):
                    pictures[index] = None if image is None else self._tensor(image)
            # A decoder may fail as a whole, out of memory say; then the next one tries.
            except RuntimeError:
                continue
        return pictures

    def _working(self, threads: int, names: Sequence[str]) -> Iterator[_Decoder]:
        kinds, on_gpu = self._codec.BackendKind, self._device.type == "cuda"
        cpu, gpu = self._codec.NVIMGCODEC_DEVICE_CPU_ONLY, self._device.index or 0
        candidates: dict[str, tuple[int, list[Any] | None]] = {
            ENGINES: (gpu, [kinds.HW_GPU_ONLY]),
            # Without a list nvImageCodec chooses among its decoders itself, those for CPUs too.
            ANY: (gpu, None),
            CPU: (cpu, [kinds.CPU_ONLY]),
        }
        for name in names if on_gpu else (CPU,):
            decoder = self._made(name, *candidates[name], threads)
            if decoder is None:
                continue
            yield decoder
            # Those for CPUs are the last resort where `ANY` does not work, which has them.
            if name == ANY:
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
            (image,) = made.decode([codec.CodeStream(PROBE)])
        except RuntimeError:
            return None
        return made if image is not None and tuple(image.shape) == (*PROBE_SIZE, 3) else None

    def _tensor(self, image: Any) -> torch.Tensor:
        if image.buffer_kind == self._codec.ImageBufferKind.STRIDED_HOST:
            return torch.from_numpy(np.asarray(image)).to(self._device)
        picture: torch.Tensor = from_dlpack(image)
        return picture


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
