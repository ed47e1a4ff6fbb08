"""Decode a request body by its `Content-Encoding` (RFC 9110 §8.4), within the size limit.

Pure. Decoding stops at the limit, so that a small body cannot become a large one.
"""

import zlib
from collections.abc import Callable
from typing import Final

import brotli
from backports import zstd

from gateway.errors import MalformedRequest, PayloadTooLarge, UnsupportedContentEncoding

# zlib reads a gzip header instead of its own from here on.
_GZIP_WINDOW_BITS: Final = 16 + zlib.MAX_WBITS
_RAW_WINDOW_BITS: Final = -zlib.MAX_WBITS
# The largest window that the content coding `zstd` may need: 8 MiB (RFC 9659 §3).
_ZSTD_OPTIONS: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}
# Parallel compressors write one for each block of the input; what is left is copied for each.
_MAX_FRAMES: Final = 64

# Decodes the first member or frame, up to so many bytes: those, whether its end came, and the rest.
_DecodeFrame = Callable[[bytes, int], tuple[bytes, bool, bytes]]


class _NotWhole(Exception):
    """The encoded data ends before its end mark, or goes on after the last one that is read."""


def decode_content(body: bytes, content_encoding: str | None, limit_bytes: int) -> bytes:
    """The body as the client had it before encoding.

    Args:
        body: As received.
        content_encoding: The header's value.
        limit_bytes: Largest decoded body.

    Raises:
        UnsupportedContentEncoding: The coding is none of `CONTENT_ENCODINGS`, or there are several.
        MalformedRequest: The body is not what the header says.
        PayloadTooLarge: The decoded body is larger than the limit.
    """
    coding = (content_encoding or "").strip().lower()
    if coding in {"", "identity"}:
        return body
    decoder = _DECODERS.get(coding)
    if decoder is None:
        raise UnsupportedContentEncoding(coding, CONTENT_ENCODINGS)
    try:
        decoded = decoder(body, limit_bytes + 1)
    except (zlib.error, brotli.error, zstd.ZstdError, _NotWhole) as exc:
        raise MalformedRequest(
            f"The body is not {coding}, as its Content-Encoding says, or is damaged, or has more"
            f" than {_MAX_FRAMES} parts or a window of more than 8 MiB"
        ) from exc
    if len(decoded) > limit_bytes:
        raise PayloadTooLarge(limit_bytes)
    return decoded


def _gzip(body: bytes, most: int) -> bytes:
    return _inflate(body, most, _GZIP_WINDOW_BITS)


def _deflate(body: bytes, most: int) -> bytes:
    try:
        return _inflate(body, most, zlib.MAX_WBITS)
    except zlib.error:
        # Some clients send it without the header of zlib (RFC 9110 §8.4.1.2 knows them).
        return _inflate(body, most, _RAW_WINDOW_BITS)


def _inflate(body: bytes, most: int, window_bits: int) -> bytes:
    def member(rest: bytes, room: int) -> tuple[bytes, bool, bytes]:
        decoder = zlib.decompressobj(window_bits)
        return decoder.decompress(rest, room), decoder.eof, decoder.unused_data

    return _joined(body, most, member)


def _joined(body: bytes, most: int, decode: _DecodeFrame) -> bytes:
    """The content of all members (gzip, RFC 1952 §2.2) or frames (zstd, RFC 8878 §3) of a body."""
    pieces: list[bytes] = []
    size = 0
    for _ in range(_MAX_FRAMES):
        piece, is_whole, body = decode(body, most - size)
        pieces.append(piece)
        size += len(piece)
        if size >= most or (is_whole and not body):
            return b"".join(pieces)
        if not is_whole:
            break
    raise _NotWhole


def _brotli(body: bytes, most: int) -> bytes:
    decoder = brotli.Decompressor()
    pieces = [decoder.process(body, output_buffer_limit=most)]
    size = len(pieces[0])
    while size < most and not decoder.is_finished() and not decoder.can_accept_more_data():
        pieces.append(decoder.process(b"", output_buffer_limit=most - size))
        size += len(pieces[-1])
    if size < most and not decoder.is_finished():
        raise _NotWhole
    return b"".join(pieces)


def _zstd(body: bytes, most: int) -> bytes:
    def frame(rest: bytes, room: int) -> tuple[bytes, bool, bytes]:
        decoder = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
        return decoder.decompress(rest, room), decoder.eof, decoder.unused_data

    return _joined(body, most, frame)


_DECODERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
CONTENT_ENCODINGS: Final = ("gzip", "deflate", "br", "zstd")
"""Codings that are decoded, as `Accept-Encoding` names them."""
