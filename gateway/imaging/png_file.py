"""Leave out of a PNG what a model never sees, and refuse one with far too many chunks.

Pure. Text and colour profiles change no pixel here, but Pillow limits them (1 MiB decompressed for
each, 64 MiB together) and calls a sound file with more of them damaged.
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
# These may say which way up the picture is.
_TURNING_KEYWORDS: Final = frozenset({b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif"})

# Pillow reads each in Python. libpng writes 8 KiB of pixels a chunk, some encoders less.
_MAX_CHUNKS: Final = 10_000
_LEAST_MEAN_BYTES: Final = 512
# An honest file has one or two. Pillow inflates each, and this check before it.
_MAX_TURNING_TEXTS: Final = 8
# Of all of them together; what turns a picture takes some kilobytes.
_MAX_INFLATED_BYTES: Final = 1_048_576


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    """Where its length stands."""
    end: int
    """After its checksum."""


def without_texts(data: bytes) -> bytes:
    """The PNG without text and colour profile, except for texts that may turn the picture.

    Raises:
        InvalidImage: It has too many chunks or such texts, or the texts are too long.
    """
    kept, at, texts, inflated = [], 0, 0, 0
    for chunk in _chunks(data):
        if chunk.kind in _TEXTS and _turns(data, chunk):
            texts += 1
            inflated += _inflated_bytes(data, chunk, _MAX_INFLATED_BYTES - inflated)
            _refuse_long_texts(texts, inflated)
        elif chunk.kind in _TEXTS or chunk.kind == _COLOUR_PROFILE:
            kept.append(data[at : chunk.start])
            at = chunk.end
    return b"".join([*kept, data[at:]]) if kept else data


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Chunks that are there whole, in order."""
    limit = max(_MAX_CHUNKS, len(data) // _LEAST_MEAN_BYTES)
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


def _turns(data: bytes, chunk: _Chunk) -> bool:
    return _keyword(data, chunk) in _TURNING_KEYWORDS


def _inflated_bytes(data: bytes, chunk: _Chunk, limit: int) -> int:
    """How long the text is that the chunk has compressed, or one more than `limit`."""
    start = chunk.start + _CHUNK_HEAD.size + len(_keyword(data, chunk)) + 1
    content = data[start : chunk.end - _CHECKSUM_BYTES]
    if chunk.kind == b"zTXt":
        compressed = content[1:]
    elif chunk.kind == b"iTXt" and content[:1] != b"\0":
        # Behind two flags, a language and a translated keyword.
        compressed = content[2:].split(b"\0", 2)[-1]
    else:
        return 0
    try:
        return len(zlib.decompressobj().decompress(compressed, limit + 1))
    except zlib.error:
        return 0


def _refuse_long_texts(texts: int, inflated: int) -> None:
    if texts > _MAX_TURNING_TEXTS:
        raise InvalidImage(
            f"The PNG has more than {_MAX_TURNING_TEXTS} texts with EXIF or XMP; save it without"
            " metadata"
        )
    if inflated > _MAX_INFLATED_BYTES:
        raise InvalidImage(
            f"The PNG's texts with EXIF or XMP are longer than {_MAX_INFLATED_BYTES} bytes; save it"
            " without metadata"
        )
