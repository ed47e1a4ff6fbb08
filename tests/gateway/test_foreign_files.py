"""Files of known kinds that are not decoded are refused with their kind and what to send."""

import pytest

from gateway.errors import InvalidImage
from gateway.imaging.foreign_files import foreign_kind
from gateway.imaging.images import decode
from gateway.modelspec import Preprocessing
from tests.hostile_images import box
from tests.pictures import PICTURES, encode, gradient

STEPS = Preprocessing(resize=None, resample="bilinear")

FOREIGN = {
    "HEIC of a phone": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "the image is HEIC/HEIF"),
    "HEIC by its structure": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "the image is HEIC/HEIF"),
    "HEIC sequence": (b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc", "the image is HEIC/HEIF"),
    "JPEG 2000": (encode(gradient(32, 32), "JPEG2000"), "the image is JPEG 2000"),
    "JPEG 2000 codestream": (
        encode(gradient(32, 32), "JPEG2000", no_jp2=True),
        "the image is JPEG 2000",
    ),
    "JPEG XL": (b"\xff\x0a\x7f\x02", "the image is JPEG XL"),
    "JPEG XL in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n", "the image is JPEG XL"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "the image is SVG"),
    "SVG of an editor": (
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made -->\n<!DOCTYPE svg PUBLIC 'x'>\n<svg>",
        "the image is SVG",
    ),
    "SVG of many comments": (b"<!-- a > b -- c -->" * 20 + b"<svg>", "the image is SVG"),
    "SVG with entities": (
        b'<!DOCTYPE svg PUBLIC "a" "b" [\n<!ENTITY c "d">\n]>\n<svg>',
        "the image is SVG",
    ),
    "Photoshop": (b"8BPS\0\x01", "the file is a Photoshop document"),
    "icon": (b"\0\0\x01\0\x01\0\x10\x10", "the file is an icon or a cursor"),
    "cursor": (b"\0\0\x02\0\x01\0\x20\x20", "the file is an icon or a cursor"),
    "PDF": (b"%PDF-1.7\n", "the file is a PDF"),
    "web page": (b"\n<!doctype html><html lang=en>", "the file is a web page"),
    "ZIP": (b"PK\x03\x04\x14\0", "the file is an archive"),
    "MP4": (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", "the file is a video"),
    "MP4 of many fragments": (
        box(b"ftyp", b"iso5\0\0\x02\0iso5dash") + box(b"moof", b"") * 21_000,
        "the file is a video",
    ),
    "QuickTime": (b"\0\0\0\x14ftypqt  ", "the file is a video"),
    "WebM": (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01", "the file is a video"),
    "AVI": (b"RIFF\0\0\0\0AVI LIST", "the file is a video"),
}


@pytest.mark.parametrize(("data", "subject"), FOREIGN.values(), ids=FOREIGN.keys())
def test_error_names_the_kind_and_what_to_send(data: bytes, subject: str) -> None:
    """The error names the kind of the file by its first bytes, and says what to send."""
    for body in (data, data + bytes(10_000), data + bytes(100_000)):
        with pytest.raises(InvalidImage) as refusal:
            decode(body, STEPS, 10_000, "fast")

        assert (
            str(refusal.value) == f"{subject}, which this server does not decode; send JPEG or PNG"
        )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Dear server,\nthis is a letter.\n", "cannot identify image file"),
        (b"PAR1\x15\x04" + bytes(100_000), "cannot identify image file"),
        (b"Pages of a letter" + bytes(100_000), "cannot identify image file"),
        (encode(gradient(32, 32), "TGA"), "cannot identify image file"),
        (b"<!-->" * 400, "cannot identify image file"),
        (bytes(1000), "cannot identify image file"),
        (b"\x89PNG\r\n\x1a\n", "cannot identify image file: its header is damaged"),
        (encode(gradient(8, 8), "AVIF")[:60], "cannot identify image file: its header is damaged"),
    ],
)
def test_other_file_gets_no_foreign_kind(data: bytes, message: str) -> None:
    """Unknown bytes and damaged files of decoded formats are not given a foreign kind."""
    with pytest.raises(InvalidImage, match=f"^{message}"):
        decode(data, STEPS, 10_000, "fast")


@pytest.mark.parametrize("name", PICTURES)
def test_decoded_format_is_not_foreign(name: str) -> None:
    """No picture of a decoded format matches a signature of the table."""
    assert foreign_kind(PICTURES[name]) is None
