"""Refuse an AVIF with more items, or more frames in one picture, than any encoder writes.

Pure. Two things make an AVIF expensive. An AV1 decoder decodes all frames of a picture, also those
that it never shows. libavif looks for each item among all other items.
Boxes are those of ISO/IEC 14496-12. Units are the open bitstream units of the AV1 specification,
5.3. Each limit counts over the whole file, so the check itself is cheap.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.errors import DAMAGED, InvalidImage

_BRANDS: Final = (b"avif", b"avis")
_FRAME_UNITS: Final = frozenset({3, 6})
_PATH_TO_SAMPLES: Final = (b"mdia", b"minf", b"stbl")
_FULL_BOX_BYTES: Final = 4
_EMPTY: Final = memoryview(b"")

# A picture has one item, and one for its transparency. A grid has an item for each tile; a tile has
# at least 64x64 pixels.
_MAX_ITEMS: Final = 4_000
# libavif looks for the items of each reference among all items too, and adds unknown ones as new
# items. A reference links each tile to its grid; others link thumbnails and transparency.
_MAX_REFERENCES: Final = 2 * _MAX_ITEMS
# A picture has one frame. A picture that is shown in steps has one for each layer, four at most.
_MAX_FRAMES: Final = 4
# An item has two or three units.
_MAX_UNITS: Final = 20_000
_MAX_BOXES: Final = 20_000
# An animation has one track, and one for its transparency. A video has a few more.
_MAX_TRACKS: Final = 8
# Items do not share bytes, and tracks do not. The first item and the first sample may be the same
# bytes, so a byte is read at most twice.
_MAX_READS: Final = 2


class _Box(NamedTuple):
    kind: bytes
    content: memoryview


class _Span(NamedTuple):
    method: int
    start: int
    size: int


class _Limit:
    """Counts one kind of thing in a file, and refuses a file that has too many."""

    def __init__(self, limit: int, refusal: str) -> None:
        self._left = limit
        self._refusal = refusal

    def count(self, amount: int = 1) -> None:
        self._left -= amount
        if self._left < 0:
            raise InvalidImage(self._refusal)


class _File:
    """A file's bytes, and its limits."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.boxes = _limit_of(_MAX_BOXES, "boxes")
        self.items = _limit_of(_MAX_ITEMS, "items")
        self.locations = _limit_of(_MAX_ITEMS, "items")
        self.spans = _limit_of(_MAX_ITEMS, "parts of items")
        self.associations = _limit_of(_MAX_ITEMS, "items with properties")
        self.references = _limit_of(_MAX_REFERENCES, "references between items")
        self.tracks = _limit_of(_MAX_TRACKS, "tracks")
        self.units = _limit_of(_MAX_UNITS, "units of AV1")
        self.bytes = _Limit(_MAX_READS * len(data), DAMAGED)


def _limit_of(limit: int, things: str) -> _Limit:
    return _Limit(
        limit, f"The AVIF has more than {limit} {things}; save it again, or send a JPEG or PNG"
    )


class _Fields:
    """Reads big-endian numbers one after the other. Numbers past the end are 0."""

    def __init__(self, content: memoryview, at: int = 0) -> None:
        self._content = content
        self.at = at

    def number(self, size: int) -> int:
        self.at += size
        return int.from_bytes(self._content[self.at - size : self.at], "big")


def check_avif(data: bytes) -> None:
    """Refuse an AVIF that no encoder writes. The decoder refuses damaged ones.

    Args:
        data: A file whose first box is `ftyp`. A file without a brand of AVIF is not checked.

    Raises:
        InvalidImage: The file has too many items, links between them, boxes, tracks, units, or
            frames in one picture.
    """
    file = _File(data)
    first = next(_boxes(file, file.data), None)
    # HEIC files and videos have the same boxes. `foreign_files` refuses them by name.
    if first is None or not any(brand in bytes(first.content) for brand in _BRANDS):
        return
    boxes = _only_boxes(file, file.data, {b"meta", b"moov"})
    if b"meta" in boxes:
        _check_items(file, boxes[b"meta"])
    if b"moov" in boxes:
        _check_tracks(file, boxes[b"moov"])


def _boxes(file: _File, content: memoryview) -> Iterator[_Box]:
    at = 0
    while at + 8 <= len(content):
        file.boxes.count()
        fields = _Fields(content, at)
        length, kind = fields.number(4), bytes(content[at + 4 : at + 8])
        fields.at += 4
        if length == 1:
            length = fields.number(8)
        end = at + length if length else len(content)
        if end < fields.at:
            return
        yield _Box(kind, content[fields.at : end])
        at = end


def _only_boxes(file: _File, content: memoryview, kinds: set[bytes]) -> dict[bytes, memoryview]:
    """Contents of the boxes of these kinds. A file with two boxes of one kind is refused."""
    found: dict[bytes, memoryview] = {}
    for box in _boxes(file, content):
        if box.kind in kinds:
            # Decoders may differ in which of the two they read.
            if box.kind in found:
                raise InvalidImage(DAMAGED)
            found[box.kind] = box.content
    return found


def _check_items(file: _File, meta: memoryview) -> None:
    kinds = {b"iloc", b"iinf", b"idat", b"iref", b"iprp"}
    boxes = _only_boxes(file, meta[_FULL_BOX_BYTES:], kinds)
    _count_links(file, boxes.get(b"iref", _EMPTY), boxes.get(b"iprp", _EMPTY))
    pictures = _picture_items(file, boxes.get(b"iinf", _EMPTY))
    sources = {0: file.data, 1: boxes.get(b"idat", _EMPTY)}
    for item, spans in _item_spans(file, boxes.get(b"iloc", _EMPTY)):
        if item in pictures:
            _check_frames(file, [(sources.get(span.method, _EMPTY), span) for span in spans])


def _count_links(file: _File, references: memoryview, properties: memoryview) -> None:
    """Count the items that `iref` and `ipma` (8.11.12 and 8.11.14) name."""
    id_size = 4 if _version(references) else 2
    for box in _boxes(file, references[_FULL_BOX_BYTES:]):
        file.references.count(max(1, _Fields(box.content, id_size).number(2)))
    for box in _boxes(file, properties):
        if box.kind == b"ipma":
            file.associations.count(_Fields(box.content, _FULL_BOX_BYTES).number(4))


def _picture_items(file: _File, infos: memoryview) -> frozenset[int]:
    """Numbers of the items that are AV1 (`iinf`, ISO/IEC 14496-12, 8.11.6)."""
    fields = _Fields(infos, _FULL_BOX_BYTES)
    file.items.count(fields.number(4 if _version(infos) > 0 else 2))
    found = set()
    for box in _boxes(file, infos[fields.at :]):
        info = _Fields(box.content, _FULL_BOX_BYTES)
        item = info.number(4 if _version(box.content) > 2 else 2)
        if bytes(box.content[info.at + 2 : info.at + 6]) == b"av01":
            found.add(item)
    return frozenset(found)


def _version(content: memoryview) -> int:
    return content[0] if content else 0


def _item_spans(file: _File, locations: memoryview) -> Iterator[tuple[int, list[_Span]]]:
    """Each item's number with its spans (`iloc`, 8.11.3)."""
    version = _version(locations)
    fields = _Fields(locations, _FULL_BOX_BYTES)
    sizes, more_sizes = fields.number(1), fields.number(1)
    index_size = more_sizes & 15 if version else 0
    count = fields.number(4 if version > 1 else 2)
    file.locations.count(count)
    for _ in range(count):
        item = fields.number(4 if version > 1 else 2)
        method = fields.number(2) & 15 if version else 0
        fields.at += 2
        base, spans = fields.number(more_sizes >> 4), []
        extents = fields.number(2)
        file.spans.count(extents)
        for _ in range(extents):
            fields.at += index_size
            start = base + fields.number(sizes >> 4)
            spans.append(_Span(method, start, fields.number(sizes & 15)))
        yield item, spans


def _check_tracks(file: _File, movie: memoryview) -> None:
    """Check the first picture of each track, the only one that is decoded."""
    for track in _boxes(file, movie):
        if track.kind != b"trak":
            continue
        file.tracks.count()
        content: memoryview | None = track.content
        items = _only_boxes(file, track.content, {b"meta"}).get(b"meta")
        if items is not None:
            _check_items(file, items)
        for kind in _PATH_TO_SAMPLES:
            content = None if content is None else _only_boxes(file, content, {kind}).get(kind)
        if content is not None:
            _check_frames(file, [(file.data, _first_sample(file, content))])


def _first_sample(file: _File, content: memoryview) -> _Span:
    """Position of a track's first sample, by the tables of `stbl` (8.7.3 and 8.7.5)."""
    tables = _only_boxes(file, content, {b"stsz", b"stco", b"co64"})
    wide = b"co64" in tables
    if wide and b"stco" in tables:
        raise InvalidImage(DAMAGED)
    sizes = _Fields(tables.get(b"stsz", _EMPTY), _FULL_BOX_BYTES)
    size, count = sizes.number(4), sizes.number(4)
    size = size or (sizes.number(4) if count else 0)
    offsets = _Fields(tables.get(b"co64" if wide else b"stco", _EMPTY), _FULL_BOX_BYTES + 4)
    return _Span(0, offsets.number(8 if wide else 4), size)


def _check_frames(file: _File, picture: list[tuple[memoryview, _Span]]) -> None:
    """Check one picture. Its units are in the spans, each of its own source, joined."""
    # Count before copying: spans may overlap.
    for source, span in picture:
        file.bytes.count(max(0, min(span.size, len(source) - span.start)))
    parts = [source[span.start : span.start + span.size] for source, span in picture]
    units = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
    frames, at = 0, 0
    while at < len(units):
        file.units.count()
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


def _variable_number(units: memoryview, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, least significant first, and where it ends."""
    value = 0
    for n, byte in enumerate(units[at : at + 8]):
        value |= (byte & 0x7F) << 7 * n
        if not byte & 0x80:
            return value, at + n + 1
    return len(units), len(units)
