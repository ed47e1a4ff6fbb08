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
_ZSTD_WINDOW_LOG: Final = 23


class _NotWhole(Exception):
    """The encoded data ends before its end mark, or goes on after it."""


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
            f"The body is not {coding}, as its Content-Encoding says, or is damaged"
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
    decoder = zlib.decompressobj(window_bits)
    decoded = decoder.decompress(body, most)
    return _whole(decoded, most, decoder.eof and not decoder.unused_data)


def _brotli(body: bytes, most: int) -> bytes:
    decoder = brotli.Decompressor()
    pieces = [decoder.process(body, output_buffer_limit=most)]
    size = len(pieces[0])
    while size < most and not decoder.is_finished() and not decoder.can_accept_more_data():
        pieces.append(decoder.process(b"", output_buffer_limit=most - size))
        size += len(pieces[-1])
    return _whole(b"".join(pieces), most, decoder.is_finished())


def _zstd(body: bytes, most: int) -> bytes:
    decoder = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    )
    decoded = decoder.decompress(body, most)
    return _whole(decoded, most, decoder.eof and not decoder.unused_data)


def _whole(decoded: bytes, most: int, is_whole: bool) -> bytes:
    """The decoded bytes, if they are all or are too many anyway."""
    if len(decoded) < most and not is_whole:
        raise _NotWhole
    return decoded


_DECODERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
CONTENT_ENCODINGS: Final = ("gzip", "deflate", "br", "zstd")
"""Codings that are decoded, as `Accept-Encoding` names them."""
