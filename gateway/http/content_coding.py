"""Decode a request body by its `Content-Encoding` (RFC 9110 §8.4), within the size limit.

Pure. Decoding stops at the limit, so that a small body cannot become a large one.
"""

import zlib
from collections.abc import Callable
from typing import Final

import brotli
from backports import zstd

from gateway.errors import MalformedRequest, PayloadTooLarge, UnsupportedContentEncoding

# With 16 added, zlib expects a gzip header instead of its own.
_GZIP_WINDOW_BITS: Final = 16 + zlib.MAX_WBITS
_RAW_WINDOW_BITS: Final = -zlib.MAX_WBITS
# The largest window that the content coding `zstd` may need: 8 MiB (RFC 9659 §3).
_ZSTD_OPTIONS: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}
# Parallel compressors write one frame for each block of the input. There is a limit because the
# rest of the body is copied for each frame.
_MAX_FRAMES: Final = 64

# Decodes the first frame of a body, up to a number of bytes. Returns the decoded bytes, whether the
# frame is complete, and the bytes after the frame.
_DecodeFrame = Callable[[bytes, int], tuple[bytes, bool, bytes]]


class _IncompleteData(Exception):
    """The encoded data has no end mark, or more than `_MAX_FRAMES` frames."""


def decode_content(body: bytes, content_encoding: str | None, limit_bytes: int) -> bytes:
    """The body as the client had it before encoding.

    Args:
        body: As received.
        content_encoding: The header's value.
        limit_bytes: Largest decoded body.

    Raises:
        UnsupportedContentEncoding: The header is not exactly one of `CONTENT_ENCODINGS`.
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
    except (zlib.error, brotli.error, zstd.ZstdError, _IncompleteData) as exc:
        raise MalformedRequest(
            f"The body is not {coding}, as its Content-Encoding says, or is damaged, or has more"
            f" than {_MAX_FRAMES} parts or a window of more than 8 MiB"
        ) from exc
    if len(decoded) > limit_bytes:
        raise PayloadTooLarge(limit_bytes)
    return decoded


def _gzip(body: bytes, max_bytes: int) -> bytes:
    return _inflate(body, max_bytes, _GZIP_WINDOW_BITS)


def _deflate(body: bytes, max_bytes: int) -> bytes:
    try:
        return _inflate(body, max_bytes, zlib.MAX_WBITS)
    except zlib.error:
        # Some clients send deflate without zlib's header (RFC 9110 §8.4.1.2 mentions them).
        return _inflate(body, max_bytes, _RAW_WINDOW_BITS)


def _inflate(body: bytes, max_bytes: int, window_bits: int) -> bytes:
    def decode_frame(rest: bytes, limit: int) -> tuple[bytes, bool, bytes]:
        decoder = zlib.decompressobj(window_bits)
        return decoder.decompress(rest, limit), decoder.eof, decoder.unused_data

    return _decode_frames(body, max_bytes, decode_frame)


def _decode_frames(body: bytes, max_bytes: int, decode_frame: _DecodeFrame) -> bytes:
    """Decode all frames of a body (zstd, RFC 8878 §3), which gzip calls members (RFC 1952 §2.2)."""
    pieces: list[bytes] = []
    size = 0
    for _ in range(_MAX_FRAMES):
        piece, is_complete, body = decode_frame(body, max_bytes - size)
        pieces.append(piece)
        size += len(piece)
        if size >= max_bytes or (is_complete and not body):
            return b"".join(pieces)
        if not is_complete:
            break
    raise _IncompleteData


def _brotli(body: bytes, max_bytes: int) -> bytes:
    decoder = brotli.Decompressor()
    pieces = [decoder.process(body, output_buffer_limit=max_bytes)]
    size = len(pieces[0])
    while size < max_bytes and not decoder.is_finished() and not decoder.can_accept_more_data():
        pieces.append(decoder.process(b"", output_buffer_limit=max_bytes - size))
        size += len(pieces[-1])
    if size < max_bytes and not decoder.is_finished():
        raise _IncompleteData
    return b"".join(pieces)


def _zstd(body: bytes, max_bytes: int) -> bytes:
    def decode_frame(rest: bytes, limit: int) -> tuple[bytes, bool, bytes]:
        decoder = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
        return decoder.decompress(rest, limit), decoder.eof, decoder.unused_data

    return _decode_frames(body, max_bytes, decode_frame)


_DECODERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
CONTENT_ENCODINGS: Final = ("gzip", "deflate", "br", "zstd")
"""Codings that the gateway decodes, as `Accept-Encoding` names them."""
