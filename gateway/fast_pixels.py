"""Image modes `fast` and `scaled`: decode JPEG with libjpeg-turbo itself, resize with SIMD.

Pure. The kernels are Pillow's own, computed by fast_image_resize; docs/image-modes.md has the
differences and docs/decisions/0005-decoder-and-resizer.md the choice.
"""

import io
import math
import struct
import threading
from typing import Final, Literal, NamedTuple

import numpy as np
import simplejpeg
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import ExifTags, Image

from gateway.modelspec import CHANNELS, Preprocessing, Resample
from gateway.pixels import Pixels, crop_box, fit, resized, with_channels

DecodeMode = Literal["reference", "fast", "scaled"]

# Pillow's names of the filters whose kernel the other library has too; its bicubic is Catmull-Rom.
_FILTERS: Final[dict[Resample, FilterType]] = {
    "bilinear": FilterType.bilinear,
    "bicubic": FilterType.catmull_rom,
}
_NEGATIVE_LOBES: Final[frozenset[Resample]] = frozenset({"bicubic"})
_OPTIONS: Final = {
    name: ResizeOptions(resize_alg=ResizeAlg.convolution(kernel), use_alpha=False)
    for name, kernel in _FILTERS.items()
}
_PIXEL_TYPES: Final = {1: PixelType.U8, 3: PixelType.U8x3}
# A scaled decode stops at twice the size wanted: what is left to do is a resize of good quality.
_SCALED_MARGIN: Final = 2
# Of the decoder's scales, eighths, these alone: the others shift the chroma of most files.
_DIVISORS: Final = (8, 4, 2)

# From here on a decoder's output is memory fresh from the kernel, and each copy of it costs.
_LARGE_PIXELS: Final = 2_000_000

# Orientations that exchange width and height.
_SWAPPING: Final = frozenset({5, 6, 7, 8})
# ISO/IEC 10918-1, table B.1.
_MARK: Final = 0xFF
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITH_LENGTH: Final = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))
_START_OF_SCAN: Final = 0xDA
_APP1: Final = 0xE1
_SEGMENT_HEAD: Final = struct.Struct(">BBH")
_FRAME: Final = struct.Struct(">BHHB")
_COMPONENTS: Final = frozenset({1, 3})

# A resizer keeps its buffers and is not shared between threads.
_own = threading.local()


class JpegHeader(NamedTuple):
    """What is known of a JPEG before it is decoded."""

    width: int
    """As stored."""
    height: int
    orientation: int
    """EXIF's, 1 to 8."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height once the picture is turned."""
        swaps = self.orientation in _SWAPPING
        return (self.height, self.width) if swaps else (self.width, self.height)


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG that `decode_jpeg` takes; none for any other file.

    Those in four colours are left to Pillow, as are those whose metadata is damaged.
    """
    segments = _segments(data)
    frames = [at for kind, at in segments.items() if kind in _FRAMES]
    if len(frames) != 1 or _START_OF_SCAN not in segments:
        return None
    # Precision, height, width, number of components (ISO/IEC 10918-1 B.2.2).
    precision, height, width, components = _FRAME.unpack_from(data, frames[0])
    if precision != 8 or not height or not width or components not in _COMPONENTS:
        return None
    try:
        orientation = _orientation(data) if _APP1 in segments else 1
    # Pillow's plug-ins raise many errors for bad metadata.
    except Exception:
        return None
    if orientation not in range(1, 9):
        return None
    return JpegHeader(width, height, orientation)


def _orientation(data: bytes) -> int:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        found: int = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found


def _segments(data: bytes) -> dict[int, int]:
    """Where the content of each segment starts, the last one of a kind, up to the first scan.

    Read here, not by the decoder: each call of it lets go of the GIL and has to get it back. What
    is no plain sequence of segments (ISO/IEC 10918-1 B.1) ends without the scan.
    """
    found: dict[int, int] = {}
    if not data.startswith(b"\xff\xd8\xff"):
        return found
    at, end = 2, len(data) - _SEGMENT_HEAD.size - _FRAME.size
    while at <= end:
        mark, kind, length = _SEGMENT_HEAD.unpack_from(data, at)
        if mark == kind == _MARK:
            # Any number of them may fill the space before a marker.
            at += 1
            continue
        if mark != _MARK or kind not in _WITH_LENGTH or length < 2:
            break
        found[kind] = at + _SEGMENT_HEAD.size
        if kind == _START_OF_SCAN:
            break
        at += 2 + length
    return found


def decode_jpeg(
    data: bytes, header: JpegHeader, preprocessing: Preprocessing, mode: DecodeMode
) -> Pixels | None:
    """Pixels as stored, fewer of them in mode `scaled`; none if the file is damaged.

    They are RGB, of large images with a fourth channel that means nothing.

    Args:
        data: A JPEG.
        header: Its header.
        preprocessing: Tells how small a scaled decode may be.
        mode: `scaled`, or any other for all pixels.
    """
    divisor = _divisor(header, preprocessing) if mode == "scaled" else 1
    # The decoder takes the smallest scale that leaves so many pixels.
    width, height = (math.ceil(edge / divisor) for edge in (header.width, header.height))
    colorspace = "RGBX" if width * height > _LARGE_PIXELS else "RGB"
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, colorspace, min_width=width, min_height=height
        )
    except ValueError:
        return None
    return pixels


def _divisor(header: JpegHeader, preprocessing: Preprocessing) -> int:
    """By how much the edges may shrink in decoding, with enough left for a resize of quality."""
    wanted = resized(*header.upright_size, preprocessing)
    if wanted is None:
        return 1
    enough = [_SCALED_MARGIN * edge for edge in wanted]
    for divisor in _DIVISORS:
        if all(
            edge >= divisor * least for edge, least in zip(header.upright_size, enough, strict=True)
        ):
            return divisor
    return 1


def fast_fit(
    pixels: Pixels,
    upright_size: tuple[int, int],
    preprocessing: Preprocessing,
    orientation: int = 1,
) -> Pixels:
    """As `gateway.pixels.fit`, within the bounds of docs/image-modes.md.

    Args:
        pixels: As stored, `(height, width, 3)`, or 4 channels as `decode_jpeg` has them.
        upright_size: Width and height of the whole image, turned; `pixels` may be scaled down.
        preprocessing: The model's colour, size, filter and crop.
        orientation: How to turn `pixels`, EXIF's 1 to 8.
    """
    wanted = resized(*upright_size, preprocessing)
    if wanted is not None and preprocessing.resample not in _OPTIONS:
        upright = Image.fromarray(_turned(pixels, orientation)[..., :3])
        return np.ascontiguousarray(fit(upright.convert(preprocessing.color), preprocessing))
    if preprocessing.color == "L":
        pixels = np.asarray(Image.fromarray(pixels[..., :3]).convert("L"))
    pixels = with_channels(pixels)
    if wanted is not None:
        # Turned afterwards: there is less to turn, and the kernels are symmetric.
        width, height = wanted[::-1] if orientation in _SWAPPING else wanted
        columns_first = orientation in _SWAPPING
        pixels = _resize(pixels, width, height, preprocessing.resample, columns_first)
    pixels = _turned(pixels, orientation)[..., : CHANNELS[preprocessing.color]]
    box = crop_box(pixels.shape[1], pixels.shape[0], preprocessing)
    if box is not None:
        pixels = pixels[box.top : box.bottom, box.left : box.right]
    return np.ascontiguousarray(pixels)


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """A view of the pixels as they are meant to be seen."""
    if orientation in _SWAPPING:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels


def _resize(
    pixels: Pixels, width: int, height: int, resample: Resample, columns_first: bool
) -> Pixels:
    """Both axes at once where that is exact enough, else in Pillow's order, one after the other.

    Kernels with negative lobes overshoot, and what is cut off after the first pass depends on
    which one it is. Pillow makes rows narrower first, for most sizes.
    """
    if resample in _NEGATIVE_LOBES and not columns_first:
        pixels = _resize_at_once(pixels, width, pixels.shape[0], resample)
    return _resize_at_once(pixels, width, height, resample)


def _resize_at_once(pixels: Pixels, width: int, height: int, resample: Resample) -> Pixels:
    """Resize with SIMD; the library makes columns shorter first."""
    if pixels.shape[:2] == (height, width):
        return pixels
    channels = pixels.shape[2]
    if channels == 4:
        return _resize_large(pixels, width, height, resample)
    kind = _PIXEL_TYPES[channels]
    source = ImageData(pixels.shape[1], pixels.shape[0], kind, pixels.tobytes())
    target = ImageData(width, height, kind)
    _resizer().resize(source, target, _OPTIONS[resample])
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, channels)


def _resize_large(pixels: Pixels, width: int, height: int, resample: Resample) -> Pixels:
    """The same without copies of the source, whose fresh memory would cost more than the resize.

    Pillow lends its four-channel images without a copy; CMYK is the one whose channels are equals.
    """
    size = pixels.shape[1], pixels.shape[0]
    source = Image.frombuffer("CMYK", size, pixels, "raw", "CMYK", 0, 1)
    target = Image.new("CMYK", (width, height))
    _resizer().resize_pil(source, target, _OPTIONS[resample])
    return np.asarray(target)


def _resizer() -> Resizer:
    try:
        own: Resizer = _own.resizer
    except AttributeError:
        own = _own.resizer = Resizer()
    return own
