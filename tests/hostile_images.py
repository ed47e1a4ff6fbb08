"""Make files that cost far more to decode than their pixels suggest, from ordinary files."""

import re
import struct
import zlib
from collections.abc import Sequence
from typing import Final

from PIL import Image

from tests.pictures import encode, gradient

_SCAN_END: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


def jpeg_segment(kind: int, content: bytes = b"") -> bytes:
    """A marker with its length and content."""
    return struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content


def last_scan(jpeg: bytes) -> bytes:
    """The last scan of a JPEG, header and data."""
    start = jpeg.rindex(b"\xff\xda")
    end = _SCAN_END.search(jpeg, start + 2)
    assert end is not None
    return jpeg[start : end.start()]


def jpeg_with_scans(scans: int, picture: Image.Image, *, is_progressive: bool = True) -> bytes:
    """A JPEG with so many scans: its last scan is repeated.

    The first scans are those of a progressive JPEG, or one for each component.
    """
    if is_progressive:
        jpeg = encode(picture, "JPEG", progressive=True)
    else:
        jpeg = one_scan_for_each_component(picture)
    scan = last_scan(jpeg)
    more = scans - jpeg.count(b"\xff\xda")
    return jpeg.removesuffix(b"\xff\xd9") + scan * more + b"\xff\xd9"


def one_scan_for_each_component(picture: Image.Image) -> bytes:
    """A baseline JPEG with a scan for each component, instead of one scan for all.

    Each scan is that of a grey JPEG, and all components use its tables.
    """
    grey = [encode(channel, "JPEG") for channel in picture.split()]
    frame = bytearray(jpeg_segment(0xC0, struct.pack(">BHHB", 8, picture.height, picture.width, 3)))
    for number in range(1, 4):
        frame += bytes([number, 0x11, 0])
    struct.pack_into(">H", frame, 2, len(frame) - 2)
    head, at = grey[0], grey[0].index(b"\xff\xc0")
    tables = head[:at] + bytes(frame) + head[at + 13 : head.index(b"\xff\xda")]
    scans = b"".join(
        jpeg_segment(0xDA, bytes([1, number, 0, 0, 63, 0])) + last_scan(each)[10:]
        for number, each in enumerate(grey, 1)
    )
    return tables + scans + b"\xff\xd9"


def with_frame(jpeg: bytes, *, kind: int, precision: int = 8, components: int = 3) -> bytes:
    """The JPEG with another frame header before the same data."""
    at = next(found.start() for found in re.finditer(rb"\xff[\xc0-\xc2]\x00.\x08", jpeg, re.DOTALL))
    changed = bytearray(jpeg)
    changed[at + 1], changed[at + 4], changed[at + 9] = kind, precision, components
    return bytes(changed)


def png_chunk(kind: bytes, content: bytes = b"") -> bytes:
    """A chunk with its length and checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", checksum)


def png_with(chunks: bytes, picture: Image.Image | None = None) -> bytes:
    """A PNG with these chunks before its pixels."""
    png = encode(picture or gradient(40, 31), "PNG")
    at = png.index(b"IDAT") - 4
    return png[:at] + chunks + png[at:]


def tiff(tags: dict[int, tuple[int, int, int]], data: bytes, *, at: int = 400) -> bytes:
    """A little-endian TIFF with these tags (type, count, value) and data from byte `at` on."""
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    head = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head.ljust(at, b"\x00") + data


def striped_tiff(strips: int) -> bytes:
    """A grey TIFF, 8 wide, in uncompressed strips of one row that share their bytes."""
    tags = {
        256: (4, 1, 8),
        257: (4, 1, strips),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, strips, 400),
        277: (3, 1, 1),
        278: (4, 1, 1),
    }
    return tiff(tags, struct.pack("<I", 8) * strips)


def gif_with(blocks: bytes) -> bytes:
    """A GIF with these blocks before its picture."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    picture = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"
    return head + blocks + picture


def box(kind: bytes, content: bytes) -> bytes:
    """A box of ISO/IEC 14496-12."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


AVIF_HEAD: Final = box(b"ftyp", b"avif\x00\x00\x00\x00avifmif1miaf")


def avif_with_frames(frames: int) -> bytes:
    """An AVIF whose picture has its frame so many times, as if with hidden frames."""
    avif = encode(gradient(16, 16), "AVIF")
    at = avif.index(b"mdat") + 4
    units = avif[at:]
    # The last unit is the frame; its offset and length stand at the end of `iloc`.
    start = units.index(bytes([0x32]))
    repeated = units + units[start:] * (frames - 1)
    place = struct.pack(">II", at, len(units))
    assert avif.count(place) == 1
    changed = avif[:at].replace(place, struct.pack(">II", at, len(repeated)))
    mdat = struct.pack(">I", 8 + len(repeated))
    return changed[:-8] + mdat + b"mdat" + repeated


def avif_with_items(items: int) -> bytes:
    """An AVIF of so many items, without pictures."""
    return AVIF_HEAD + items_box(items)


def avif_of_units(units: bytes, *, spans: int = 1, metas: int = 1) -> bytes:
    """An AVIF of one picture, each of whose spans has all these units."""
    size = len(items_box(1, spans=[(0, 0)] * spans)) * metas
    at = len(AVIF_HEAD) + size + 8
    return AVIF_HEAD + items_box(1, spans=[(at, len(units))] * spans) * metas + box(b"mdat", units)


def avif_of_tracks(tracks: int, content: bytes = b"") -> bytes:
    """An AVIF of so many tracks, each with the whole file as its first sample."""
    sizes = box(b"stsz", struct.pack(">III", 0, 2**32 - 1, 1))
    places = box(b"stco", struct.pack(">III", 0, 1, 0))
    samples = box(b"mdia", box(b"minf", box(b"stbl", sizes + places)))
    return AVIF_HEAD + box(b"moov", box(b"trak", content + samples) * tracks)


def items_box(
    items: int, more: bytes = b"", *, spans: Sequence[tuple[int, int]] = ((0, 1),)
) -> bytes:
    """A `meta` of so many items, whose bytes are in these spans of the file (start, length)."""
    extents = b"".join(struct.pack(">II", *span) for span in spans)
    places = b"".join(
        struct.pack(">IHHH", n, 0, 0, len(spans)) + extents for n in range(1, items + 1)
    )
    infos = b"".join(
        box(b"infe", struct.pack(">IIH", 3 << 24, n, 0) + b"av01\x00") for n in range(1, items + 1)
    )
    meta = (
        box(b"hdlr", bytes(8) + b"pict" + bytes(13))
        + box(b"pitm", struct.pack(">IH", 0, 1))
        + box(b"iloc", struct.pack(">IHI", 2 << 24, 0x4400, items) + places)
        + box(b"iinf", struct.pack(">II", 1 << 24, items) + infos)
    )
    return box(b"meta", bytes(4) + meta + more)


def avif_with_references(references: int) -> bytes:
    """An AVIF of one item with references to so many missing ones."""
    others = struct.pack(f">IH{references}I", 1, references, *range(2, references + 2))
    return AVIF_HEAD + items_box(1, box(b"iref", struct.pack(">I", 1 << 24) + box(b"dimg", others)))


def avif_with_associations(associations: int) -> bytes:
    """An AVIF of one item, with properties for so many items."""
    entries = b"".join(struct.pack(">IBB", n, 1, 1) for n in range(1, associations + 1))
    links = box(b"ipma", struct.pack(">II", 1 << 24, associations) + entries)
    return AVIF_HEAD + items_box(1, box(b"iprp", box(b"ipco", b"") + links))
