"""Name the kind of a file that the gateway does not decode, and say what to send instead.

Pure. The table has the kinds that people send, and no others.
"""

import re
from typing import Final, NamedTuple

_HEAD_BYTES: Final = 2048


class _Kind(NamedTuple):
    signature: re.Pattern[bytes]
    subject: str


def _kind(subject: str, signature: bytes) -> _Kind:
    return _Kind(re.compile(signature, re.DOTALL | re.IGNORECASE), subject)


# Atomic and possessive, so that matching takes time linear in the head's length.
_BEFORE_SVG: Final = (
    rb"(?>(?:<\?xml[^>]*+|<!--.*?--|<!DOCTYPE svg[^\[>]*+(?:\[[^\]]*+\]\s*+)?+)>)\s*+"
)

_KINDS: Final = (
    # Brands such as `mif1` name only the structure of the boxes; AVIF files have them too.
    _kind(
        "the image is HEIC/HEIF",
        rb"....ftyp(?!.{0,52}avi[fs])(?:hei[cxms]|hev[cxms]|mi[fa]1|msf1|mif2|avc[is])",
    ),
    _kind("the image is JPEG 2000", rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  "),
    _kind("the image is JPEG XL", rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
    _kind("the image is SVG", rb"(?:\xef\xbb\xbf)?+\s*+(?:" + _BEFORE_SVG + rb")*+<svg[\s>]"),
    _kind("the file is a Photoshop document", rb"8BPS"),
    # An icon's number of pictures comes next. A TGA begins with the same bytes, and then has zeros.
    _kind("the file is an icon or a cursor", rb"\x00\x00[\x01\x02]\x00(?!\x00\x00)"),
    _kind("the file is a PDF", rb"%PDF-"),
    _kind("the file is a web page", rb"(?:\xef\xbb\xbf)?\s*<(?:!DOCTYPE )?html"),
    _kind("the file is an archive", rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf\x27\x1c|Rar!"),
    _kind(
        "the file is a video",
        rb"....(?:ftyp(?!avi[fs])|moov|mdat|wide)|\x1a\x45\xdf\xa3|RIFF....AVI |FLV\x01",
    ),
)


def foreign_kind(data: bytes) -> str | None:
    """A clause that names the file's kind and says what to send; None for unknown kinds."""
    head = data[:_HEAD_BYTES]
    for kind in _KINDS:
        if kind.signature.match(head):
            return f"{kind.subject}, which this server does not decode; send JPEG or PNG"
    return None
