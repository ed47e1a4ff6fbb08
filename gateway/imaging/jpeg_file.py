"""Read a JPEG's frame and count its parts, without decoding, to decide how it may be decoded.

Pure. The markers are found as libjpeg and Pillow find them (ISO/IEC 10918-1, annex B), at a cost
linear in the file's size.
"""

import re
import struct
from typing import Final, NamedTuple

from gateway.errors import DAMAGED, InvalidImage

JPEG_SIGNATURE: Final = b"\xff\xd8\xff"

_MARKER: Final = re.compile(rb"\xff([^\x00\xff])")
# Stuffed zeros and restart markers belong to a scan's own data.
_MARKER_AFTER_SCAN: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_HUFFMAN_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
_PROGRESSIVE_FRAMES: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_FIRST_KNOWN_MARKER: Final = 0xC0
# Between the frames' markers are DHT, JPG and DAC.
_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL_FRAMES: Final = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
# DHP and EXP, which only hierarchical JPEGs have.
_HIERARCHICAL_SEGMENTS: Final = frozenset({0xDE, 0xDF})
# JPG and JPG0 to JPG13.
_NEVER_DECODED: Final = frozenset({0xC8, *range(0xF0, 0xFE)})
_QUANTISATION: Final = 0xDB
_APPLICATIONS: Final = range(0xE0, 0xF0)
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xDA)})
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
_LENGTH: Final = struct.Struct(">H")
_FRAME: Final = struct.Struct(">BHHB")

# An ordinary file has about ten segments, and one for each 64 KiB of metadata. Pillow reads them in
# Python.
_MAX_SEGMENTS: Final = 4_000
# Pillow looks at each stray byte in Python.
_MAX_STRAY_BYTES: Final = 65_536
# Encoders write 10 scans for colour and 18 for CMYK, optimisers a few more. Each scan costs work on
# all pixels.
_MAX_SCANS: Final = 100
_MAX_SCANS_OF_LARGEST: Final = 20


# An ordinary JPEG without metadata has its first scan within so many bytes.
_SHORT_HEAD_BYTES: Final = 1024


class JpegFrame(NamedTuple):
    """The fields of a frame header (ISO/IEC 10918-1 B.2.2)."""

    kind: int
    """Second byte of its marker, 0xC0 to 0xCF."""
    precision: int
    """Bits of a sample."""
    height: int
    width: int
    components: int

    @property
    def is_scalable(self) -> bool:
        """Whether the decoder can safely decode the frame to fewer pixels.

        Lossless frames, for example, cannot be scaled. libjpeg-turbo before 3.1.4 wrote all their
        pixels into a buffer for fewer.
        """
        return self.kind in _HUFFMAN_FRAMES and self.precision == 8 and self.components in {1, 3}


class JpegHead(NamedTuple):
    """The part of a JPEG before its first scan."""

    frame: JpegFrame
    segments: list[tuple[int, int]]
    """Second byte of each marker, and the offset behind it; the last one is the first scan's."""

    @property
    def scan_at(self) -> int:
        """Offset of the first scan's header, behind its marker."""
        return self.segments[-1][1]

    @property
    def frame_at(self) -> int:
        """Offset of the frame's header, behind its marker."""
        return next(at for kind, at in self.segments if kind == self.frame.kind)

    @property
    def applications(self) -> list[tuple[int, int]]:
        """The segments APP0 to APP15."""
        return [(kind, at) for kind, at in self.segments if kind in _APPLICATIONS]

    @property
    def quantisation(self) -> list[int]:
        """Offsets of the segments with tables of quantisation."""
        return [at for kind, at in self.segments if kind == _QUANTISATION]


def has_short_head(data: bytes) -> bool:
    """Whether a file is a JPEG whose first scan begins early.

    Reading such a head takes far below a millisecond.

    Raises:
        InvalidImage: As `check_jpeg` does.
    """
    return data.startswith(JPEG_SIGNATURE) and _read_head(data[:_SHORT_HEAD_BYTES]) is not None


def end_of_picture(data: bytes, head: JpegHead) -> int | None:
    """Offset behind the end of a picture with one scan.

    Returns:
        None if the scan ends with another marker or with the file: the picture is truncated or
        damaged, or has more scans.
    """
    found = _MARKER_AFTER_SCAN.search(data, _behind_scan_header(data, head))
    return found.end() if found and data[found.end() - 1] == _END_OF_IMAGE else None


def check_jpeg(data: bytes, max_image_pixels: int) -> JpegHead | None:
    """Refuse a JPEG that costs far more to decode than its number of pixels suggests.

    A JPEG of a kind that the gateway does not decode is refused too.

    Args:
        data: A file that begins as a JPEG.
        max_image_pixels: Pixels of the largest image. The larger an image, the fewer scans it may
            have.

    Returns:
        The head; None if the file is too damaged to have one. The decoder refuses such a file.

    Raises:
        InvalidImage: The file has too many segments, stray bytes or scans, or a kind that is not
            decoded.
    """
    head = _read_head(data)
    if head is None:
        return None
    _refuse_unsupported(head.frame)
    pixels = max(1, head.frame.width * head.frame.height)
    limit = min(
        _MAX_SCANS, max(_MAX_SCANS_OF_LARGEST, _MAX_SCANS_OF_LARGEST * max_image_pixels // pixels)
    )
    if _may_have_many_scans(data, head) and _count_scans(data, head, limit) > limit:
        raise InvalidImage(
            f"The JPEG has more than {limit} scans, the limit for its size; save it as a baseline"
            " JPEG"
        )
    return head


def _read_head(data: bytes) -> JpegHead | None:
    frame, at, stray = None, 2, 0
    segments: list[tuple[int, int]] = []
    while found := _MARKER.search(data, at, at + _MAX_STRAY_BYTES + 2):
        kind, start = data[found.end() - 1], found.end()
        stray += found.start() - at
        segments.append((kind, start))
        _refuse_many_segments(len(segments), stray)
        if kind in _WITHOUT_LENGTH:
            at = start
            continue
        if kind < _FIRST_KNOWN_MARKER or start + _LENGTH.size + _FRAME.size > len(data):
            return None
        if kind in _HIERARCHICAL_SEGMENTS:
            raise _unsupported("Hierarchical JPEG")
        if kind in _NEVER_DECODED or (kind in _FRAME_MARKERS and frame is not None):
            raise InvalidImage(DAMAGED)
        if kind in _FRAME_MARKERS:
            frame = JpegFrame(kind, *_FRAME.unpack_from(data, start + _LENGTH.size))
        if kind == _START_OF_SCAN:
            return None if frame is None else JpegHead(frame, segments)
        at = start + _LENGTH.unpack_from(data, start)[0]
    if len(data) - at > _MAX_STRAY_BYTES:
        _refuse_many_segments(len(segments), len(data) - at)
    return None


def _refuse_many_segments(segments: int, stray: int) -> None:
    if segments > _MAX_SEGMENTS:
        raise InvalidImage(
            f"The JPEG has more than {_MAX_SEGMENTS} segments; save it again without metadata"
        )
    if stray > _MAX_STRAY_BYTES:
        raise InvalidImage(
            f"The JPEG has more than {_MAX_STRAY_BYTES} bytes that belong to no segment; save it"
            " again"
        )


def _refuse_unsupported(frame: JpegFrame) -> None:
    if frame.precision != 8:
        raise _unsupported(f"JPEG with {frame.precision} bits a sample")
    if frame.components not in {1, 3, 4}:
        raise _unsupported(f"JPEG with {frame.components} components")
    if frame.kind in _HIERARCHICAL_FRAMES:
        raise _unsupported("Hierarchical JPEG")


def _unsupported(kind: str) -> InvalidImage:
    return InvalidImage(f"{kind} is not supported; send a baseline JPEG or a PNG")


def _may_have_many_scans(data: bytes, head: JpegHead) -> bool:
    """Whether the decoder looks for a second scan.

    It does not if the first scan of a JPEG that is not progressive has all components.
    """
    at = head.scan_at + _LENGTH.size
    return head.frame.kind in _PROGRESSIVE_FRAMES or data[at : at + 1] != bytes(
        [head.frame.components]
    )


def _count_scans(data: bytes, head: JpegHead, limit: int) -> int:
    """Number of scans up to the end of the image; counting stops at `limit` + 1."""
    scans, segments = 1, len(head.segments)
    at = _behind_scan_header(data, head)
    while scans <= limit and (found := _MARKER_AFTER_SCAN.search(data, at)):
        kind, at = data[found.end() - 1], found.end()
        segments += 1
        _refuse_many_segments(segments, 0)
        if kind == _END_OF_IMAGE:
            break
        if kind == _START_OF_SCAN:
            scans += 1
        # The decoder reads no length after any other marker.
        if kind >= _FIRST_KNOWN_MARKER and kind not in _WITHOUT_LENGTH and at + 2 <= len(data):
            at += _LENGTH.unpack_from(data, at)[0]
    return scans


def _behind_scan_header(data: bytes, head: JpegHead) -> int:
    length: int = _LENGTH.unpack_from(data, head.scan_at)[0]
    return head.scan_at + length
