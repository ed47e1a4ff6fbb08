"""Remove chunks that change no pixel from a PNG, and refuse a PNG with far too many chunks.

Pure. Texts and colour profiles change no pixel here. Pillow limits them (1 MiB decompressed for
each, 64 MiB together) and would call a sound file over these limits damaged.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.errors import InvalidImage

_SIGNATURE_BYTES: Final = 8
_CHUNK_HEAD: Final = struct.Struct(">I4s")
_CHECKSUM_BYTES: Final = 4
_END: Final = b"IEND"
_COLOUR_PROFILE: Final = b"iCCP"
_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
# The longest a keyword may be (ISO/IEC 15948, 11.3.4).
_KEYWORD_BYTES: Final = 79
# Texts with these keywords may hold the orientation.
_ORIENTATION_KEYWORDS: Final = frozenset({b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif"})

# Pillow reads chunks in Python. libpng writes 8 KiB of pixels a chunk, some encoders less. A large
# file may have more chunks, if they are not small on average.
_MAX_CHUNKS: Final = 10_000
_MIN_MEAN_CHUNK_BYTES: Final = 512
# An ordinary file has one or two such texts. This check inflates each of them, and then Pillow.
_MAX_ORIENTATION_TEXTS: Final = 8
# The limit for all these texts together. Texts with an orientation take some kilobytes.
_MAX_INFLATED_BYTES: Final = 1_048_576


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    """Offset of the chunk's length."""
    end: int
    """Offset after the chunk's checksum."""


def check_and_strip_png(data: bytes) -> bytes:
    """The PNG without colour profile and texts, except for texts that may hold the orientation.

    Raises:
        InvalidImage: The file has too many chunks or texts of that kind, or these are too long.
    """
    pieces, at, texts, inflated = [], 0, 0, 0
    for chunk in _chunks(data):
        if chunk.kind in _TEXTS and _may_hold_orientation(data, chunk):
            texts += 1
            inflated += _inflated_bytes(data, chunk, _MAX_INFLATED_BYTES - inflated)
            _refuse_long_texts(texts, inflated)
        elif chunk.kind in _TEXTS or chunk.kind == _COLOUR_PROFILE:
            pieces.append(data[at : chunk.start])
            at = chunk.end
    return b"".join([*pieces, data[at:]]) if pieces else data


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The complete chunks before the end chunk, in order."""
    limit = max(_MAX_CHUNKS, len(data) // _MIN_MEAN_CHUNK_BYTES)
    at = _SIGNATURE_BYTES
    for _ in range(limit):
        if at + _CHUNK_HEAD.size > len(data):
            return
        length, kind = _CHUNK_HEAD.unpack_from(data, at)
        end = at + _CHUNK_HEAD.size + length + _CHECKSUM_BYTES
        if end > len(data):
            return
        if kind == _END:
            return
        yield _Chunk(kind, at, end)
        at = end
    if at + _CHUNK_HEAD.size <= len(data):
        raise InvalidImage(
            f"The PNG has more than {limit} chunks, the limit for its size; save it again"
        )


def _keyword(data: bytes, chunk: _Chunk) -> bytes:
    start = chunk.start + _CHUNK_HEAD.size
    return data[start : min(start + _KEYWORD_BYTES + 1, chunk.end)].partition(b"\0")[0]


def _may_hold_orientation(data: bytes, chunk: _Chunk) -> bool:
    return _keyword(data, chunk) in _ORIENTATION_KEYWORDS


def _inflated_bytes(data: bytes, chunk: _Chunk, limit: int) -> int:
    """Length of the chunk's text once decompressed, or `limit` + 1 if it is longer.

    0 for a text that is not compressed.
    """
    start = chunk.start + _CHUNK_HEAD.size + len(_keyword(data, chunk)) + 1
    content = data[start : chunk.end - _CHECKSUM_BYTES]
    if chunk.kind == b"zTXt":
        compressed = content[1:]
    elif chunk.kind == b"iTXt" and content[:1] != b"\0":
        # The text comes after two flags, a language and a translated keyword.
        compressed = content[2:].split(b"\0", 2)[-1]
    else:
        return 0
    try:
        return len(zlib.decompressobj().decompress(compressed, limit + 1))
    except zlib.error:
        return 0


def _refuse_long_texts(texts: int, inflated: int) -> None:
    if texts > _MAX_ORIENTATION_TEXTS:
        raise InvalidImage(
            f"The PNG has more than {_MAX_ORIENTATION_TEXTS} texts with EXIF or XMP;"
            " save it without metadata"
        )
    if inflated > _MAX_INFLATED_BYTES:
        raise InvalidImage(
            f"The PNG's texts with EXIF or XMP are longer than {_MAX_INFLATED_BYTES} bytes; save it"
            " without metadata"
        )
