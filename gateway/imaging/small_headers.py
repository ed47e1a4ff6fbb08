"""Refuse GIF, PNM and TIFF files whose headers cost far more than their pixels.

Pure. Pillow reads these headers in Python, and no other thread runs meanwhile.
"""

import re
import struct
from typing import Final

from gateway.errors import InvalidImage

# A header of netpbm: a magic number, then width, height and depth, with white space and comments
# before each.
_PNM_HEADERS: Final = {
    numbers: re.compile(rb"P\w++(?:(?:\s|#[^\r\n]*+[\r\n])++[^\s#]++){%d}+\s" % numbers)
    for numbers in (2, 3)
}
# These have one bit a sample, so their headers have no depth.
_PNM_BITMAPS: Final = (b"P1", b"P4")

_GIF_SCREEN_BYTES: Final = 13
_GIF_EXTENSION: Final = ord("!")
_GIF_FRAME_OR_END: Final = b",;"

# TIFF 6.0 and BigTIFF: the directory's offset and number of entries, and an entry: tag, type,
# number of values, and where they are.
_TIFF_BIG: Final = 43
_TIFF_LAYOUTS: Final = {False: ("I", "H", "HHI4x"), True: ("Q", "Q", "HHQ8x")}
_TIFF_OFFSETS: Final = frozenset({273, 324})

# Ordinary comments take some hundred bytes.
_MAX_PNM_HEADER_BYTES: Final = 65_536
# A block has up to 255 bytes. Photoshop's metadata take some hundred blocks.
_MAX_GIF_BLOCKS: Final = 65_536
# Enough for a tall picture with a strip for each row.
_MAX_TIFF_PARTS: Final = 65_536


def check_pnm(data: bytes) -> None:
    """Refuse a PNM whose header is long, by comments or white space.

    Raises:
        InvalidImage: The header is longer than the limit.
    """
    header = _PNM_HEADERS[2 if data.startswith(_PNM_BITMAPS) else 3]
    if len(data) > _MAX_PNM_HEADER_BYTES and not header.match(data, 0, _MAX_PNM_HEADER_BYTES):
        raise InvalidImage(
            f"The header of the PNM has more than {_MAX_PNM_HEADER_BYTES} bytes; save it without"
            " comments"
        )


def check_gif(data: bytes) -> None:
    """Refuse a GIF with too many blocks before its first frame. Later blocks are not counted.

    Raises:
        InvalidImage: The GIF has more blocks than the limit.
    """
    flags = data[10] if len(data) > 10 else 0
    at = _GIF_SCREEN_BYTES + (3 << (flags & 7) + 1 if flags & 128 else 0)
    is_in_extension = False
    for _ in range(_MAX_GIF_BLOCKS):
        if at >= len(data) or (not is_in_extension and data[at] in _GIF_FRAME_OR_END):
            return
        if is_in_extension:
            # An empty block ends the extension.
            is_in_extension = data[at] > 0
            at += 1 + data[at]
        elif data[at] == _GIF_EXTENSION:
            is_in_extension = True
            at += 2
        else:
            at += 1
    raise InvalidImage(
        f"The GIF has more than {_MAX_GIF_BLOCKS} blocks before its picture; save it again"
    )


def check_tiff(data: bytes) -> None:
    """Refuse a TIFF with too many strips or tiles. Only its first picture is checked.

    Raises:
        InvalidImage: The TIFF has more strips or tiles than the limit.
    """
    order = "<" if data.startswith(b"II") else ">"
    is_big = _TIFF_BIG in data[2:4]
    offset, number, entry = (struct.Struct(order + part) for part in _TIFF_LAYOUTS[is_big])
    try:
        (start,) = offset.unpack_from(data, 8 if is_big else 4)
        (count,) = number.unpack_from(data, start)
    # The offset is larger than any file.
    except (struct.error, OverflowError):
        return
    start += number.size
    whole = min(count, max(0, len(data) - start) // entry.size)
    for tag, _, values in entry.iter_unpack(data[start : start + whole * entry.size]):
        if tag in _TIFF_OFFSETS and values > _MAX_TIFF_PARTS:
            raise InvalidImage(
                f"The TIFF has {values} strips or tiles, and {_MAX_TIFF_PARTS} is the limit; save"
                " it with fewer, or send a JPEG or PNG"
            )
