"""Refuse an AVIF with more items, or more frames in one picture, than any encoder writes.

Pure. An AV1 decoder decodes all frames of a picture's data, also those it never shows, and libavif
looks for each item among all others. Boxes are those of ISO/IEC 14496-12, open bitstream units
those of the AV1 specification, 5.3.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.errors import DAMAGED, InvalidImage

_FRAME_UNITS: Final = frozenset({3, 6})
_PATH_TO_SAMPLES: Final = (b"trak", b"mdia", b"minf", b"stbl")
_FULL_BOX_BYTES: Final = 4

# One and its transparency; a grid has as many as tiles, each at least 64x64.
_MAX_ITEMS: Final = 4_000
# One, or one for each layer of a picture that is shown in steps, of which AVIF has four.
_MAX_FRAMES: Final = 4
_MAX_BOXES: Final = 20_000


class _Box(NamedTuple):
    kind: bytes
    content: bytes


class _Fields:
    """Big-endian numbers one after the other; past the end they are 0."""

    def __init__(self, content: bytes, at: int = 0) -> None:
        self._content = content
        self.at = at

    def number(self, size: int) -> int:
        self.at += size
        return int.from_bytes(self._content[self.at - size : self.at], "big")


def check_avif(data: bytes) -> None:
    """Refuse what no encoder writes; what is damaged is left to the decoder.

    Raises:
        InvalidImage: The file has too many items, boxes, or frames in one picture.
    """
    for box in _boxes(data):
        if box.kind == b"meta":
            _check_items(data, box.content[_FULL_BOX_BYTES:])
        elif box.kind == b"moov":
            _check_first_samples(data, box.content)


def _boxes(content: bytes) -> Iterator[_Box]:
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 8 > len(content):
            return
        fields = _Fields(content, at)
        length, kind = fields.number(4), content[at + 4 : at + 8]
        fields.at += 4
        if length == 1:
            length = fields.number(8)
        end = at + length if length else len(content)
        if end < fields.at:
            return
        yield _Box(kind, content[fields.at : end])
        at = end
    raise InvalidImage(f"The AVIF has more than {_MAX_BOXES} boxes; save it again")


def _check_items(data: bytes, meta: bytes) -> None:
    boxes = {box.kind: box.content for box in _boxes(meta)}
    places, infos = boxes.get(b"iloc", b""), boxes.get(b"iinf", b"")
    pictures = _picture_items(infos)
    sources = {0: data, 1: boxes.get(b"idat", b"")}
    spans_so_far = bytes_so_far = 0
    for item, spans in _item_spans(places):
        spans_so_far += len(spans)
        _refuse_many_items(spans_so_far)
        if item in pictures:
            parts = [sources.get(m, b"")[start : start + size] for m, start, size in spans]
            bytes_so_far += sum(map(len, parts))
            # Items share no bytes.
            if bytes_so_far > len(data):
                raise InvalidImage(DAMAGED)
            _check_frames(b"".join(parts))


def _picture_items(infos: bytes) -> frozenset[int]:
    """Numbers of the items that are AV1 (`iinf`, ISO/IEC 14496-12, 8.11.6)."""
    count_size = 4 if infos[:1] > b"\0" else 2
    start = _FULL_BOX_BYTES + count_size
    _refuse_many_items(int.from_bytes(infos[_FULL_BOX_BYTES:start], "big"))
    found = set()
    for box in _boxes(infos[start:]):
        size = 4 if box.content[:1] > b"\2" else 2
        fields = _Fields(box.content, _FULL_BOX_BYTES)
        item = fields.number(size)
        if box.content[fields.at + 2 : fields.at + 6] == b"av01":
            found.add(item)
    return frozenset(found)


def _item_spans(places: bytes) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
    """Each item with its spans: method, offset and length (`iloc`, 8.11.3)."""
    version = places[0] if places else 0
    fields = _Fields(places, _FULL_BOX_BYTES)
    sizes, more_sizes = fields.number(1), fields.number(1)
    index_size = more_sizes & 15 if version else 0
    count = fields.number(4 if version > 1 else 2)
    _refuse_many_items(count)
    for _ in range(count):
        item = fields.number(4 if version > 1 else 2)
        method = fields.number(2) & 15 if version else 0
        fields.at += 2
        base, spans = fields.number(more_sizes >> 4), []
        extents = fields.number(2)
        _refuse_many_items(extents)
        for _ in range(extents):
            fields.at += index_size
            start = base + fields.number(sizes >> 4)
            spans.append((method, start, fields.number(sizes & 15)))
        yield item, spans


def _check_first_samples(data: bytes, movie: bytes) -> None:
    """Check the first picture of each track, the only one that is decoded."""
    contents = [movie]
    for kind in _PATH_TO_SAMPLES:
        contents = [box.content for each in contents for box in _boxes(each) if box.kind == kind]
        _refuse_many_items(len(contents))
    for content in contents:
        tables = {box.kind: box.content for box in _boxes(content)}
        sizes = _Fields(tables.get(b"stsz", b""), _FULL_BOX_BYTES)
        size, count = sizes.number(4), sizes.number(4)
        size = size or (sizes.number(4) if count else 0)
        wide = b"co64" in tables
        offsets = _Fields(tables.get(b"co64" if wide else b"stco", b""), _FULL_BOX_BYTES + 4)
        start = offsets.number(8 if wide else 4)
        _check_frames(data[start : start + size])


def _check_frames(units: bytes) -> None:
    frames, at = 0, 0
    while at < len(units):
        head = units[at]
        at += 2 if head & 4 else 1
        frames += (head >> 3 & 15) in _FRAME_UNITS
        if frames > _MAX_FRAMES:
            raise InvalidImage(
                f"A picture of the AVIF has more than {_MAX_FRAMES} frames; save it again, or send"
                " a JPEG or PNG"
            )
        # A unit without a size is the last one.
        if not head & 2:
            return
        size, at = _variable_number(units, at)
        at += size


def _variable_number(units: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, least significant first, and where it ends."""
    value = 0
    for n, byte in enumerate(units[at : at + 8]):
        value |= (byte & 0x7F) << 7 * n
        if not byte & 0x80:
            return value, at + n + 1
    return len(units), len(units)


def _refuse_many_items(count: int) -> None:
    if count > _MAX_ITEMS:
        raise InvalidImage(
            f"The AVIF has {count} items, and {_MAX_ITEMS} is the limit; save it again, or send a"
            " JPEG or PNG"
        )
