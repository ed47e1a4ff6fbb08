"""`decode_content` decodes a body within the limit, or refuses it."""

import gzip
import tracemalloc
import zlib

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    GatewayError,
    MalformedRequest,
    PayloadTooLarge,
    UnsupportedContentEncoding,
)
from gateway.http.content_coding import CONTENT_ENCODINGS, decode_content

LIMIT = 100_000


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    " ZSTD ": zstd.compress,
}
encoders = pytest.mark.parametrize("coding", ENCODERS)


@encoders
@given(data=st.binary(max_size=2000))
def test_every_coding_is_decoded(coding: str, data: bytes) -> None:
    """A body encoded with any supported coding is decoded, whatever the case of its name."""
    assert decode_content(ENCODERS[coding](data), coding, LIMIT) == data


@encoders
def test_limit_applies_to_the_decoded_body(coding: str) -> None:
    """A decoded body of exactly the limit passes, and one byte more is refused."""
    assert len(decode_content(ENCODERS[coding](bytes(LIMIT)), coding, LIMIT)) == LIMIT
    with pytest.raises(PayloadTooLarge, match=str(LIMIT)):
        decode_content(ENCODERS[coding](bytes(LIMIT + 1)), coding, LIMIT)


@encoders
def test_decompression_bomb_takes_little_memory(coding: str) -> None:
    """Decoding stops at the limit, so a small body cannot take far more memory than that."""
    bomb = ENCODERS[coding](bytes(200 * LIMIT))

    tracemalloc.start()
    with pytest.raises(PayloadTooLarge):
        decode_content(bomb, coding, LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 5 * LIMIT


@encoders
@pytest.mark.parametrize("damage", ["cut", "longer", "none at all"])
def test_damaged_body_is_refused(coding: str, damage: str) -> None:
    """A body that is cut, too long or not encoded is refused with the coding's name."""
    whole = ENCODERS[coding](b"an image of a cat")
    body = {"cut": whole[:-1], "longer": whole + b"\x89PNG", "none at all": b"\x89PNG"}[damage]

    with pytest.raises(MalformedRequest, match=coding.strip().lower()):
        decode_content(body, coding, LIMIT)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_several_parts_are_one_body(coding: str) -> None:
    """A body of up to 64 gzip members or zstd frames is decoded as one body."""
    encode = ENCODERS["gzip"] if coding == "gzip" else zstd.compress
    pieces = [b"an image ", b"", b"of a cat"]

    assert decode_content(b"".join(map(encode, pieces)), coding, LIMIT) == b"an image of a cat"
    with pytest.raises(PayloadTooLarge):
        decode_content(encode(bytes(LIMIT)) + encode(b"x"), coding, LIMIT)
    with pytest.raises(MalformedRequest, match="64 parts"):
        decode_content(encode(b"") * 65, coding, LIMIT)


@pytest.mark.parametrize("coding", ["compress", "gzip, br", "aes128gcm", "x" * 1000])
def test_other_codings_are_415(coding: str) -> None:
    """An unsupported coding is 415 with the supported ones, as RFC 9110 §15.5.16 asks."""
    with pytest.raises(UnsupportedContentEncoding) as caught:
        decode_content(b"body", coding, LIMIT)

    assert caught.value.status == 415
    assert caught.value.headers == {"accept-encoding": ", ".join(CONTENT_ENCODINGS)}
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("coding", [None, "", "identity", "Identity"])
def test_body_without_a_coding_stays_as_it_is(coding: str | None) -> None:
    """A body that is not encoded is passed on without a copy."""
    body = bytes(10)

    assert decode_content(body, coding, 1) is body


@given(st.binary(max_size=500), st.sampled_from([*CONTENT_ENCODINGS, "x-gzip"]))
def test_any_bytes_are_decoded_or_refused(data: bytes, coding: str) -> None:
    """For any bytes, `decode_content` returns a body within the limit or raises a 400 or 413."""
    try:
        assert len(decode_content(data, coding, LIMIT)) <= LIMIT
    except GatewayError as exc:
        assert exc.status in {400, 413}
