"""Read `multipart/form-data` (RFC 7578). Pure."""

from typing import TYPE_CHECKING, Final, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import MalformedRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM_TYPE: Final = "multipart/form-data"
_MAX_PARTS: Final = 16


class FormPart(NamedTuple):
    """One part of a form."""

    name: str
    has_filename: bool
    """Whether the part's `Content-Disposition` has `filename` or `filename*`."""
    content_type: str
    """In lower case, without parameters; empty if the part has no `Content-Type`."""
    content: bytes


def is_form(content_type: str) -> bool:
    """Whether a request of this `Content-Type` holds a form."""
    return media_type(content_type) == FORM_TYPE


def media_type(content_type: str) -> str:
    """A `Content-Type` in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def parse_form(body: bytes, content_type: str) -> list[FormPart]:
    """The parts of a form, in their order.

    Raises:
        MalformedRequest: The type names no boundary, the form is damaged or incomplete, or it has
            more than 16 parts.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise MalformedRequest(
            f"The Content-Type {FORM_TYPE} names no boundary; leave the header to your HTTP"
            " library, which knows the boundary it writes"
        )
    reader = _PartReader()
    try:
        parser = MultipartParser(boundary, callbacks=reader.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as exc:
        raise MalformedRequest(f"The body is no well-formed {FORM_TYPE}") from exc
    if not reader.is_whole:
        raise MalformedRequest(
            f"The form ends before its last boundary; it is no whole {FORM_TYPE}"
        )
    return reader.parts


class _PartReader:
    """Collects the parts of a form from the parser's callbacks."""

    def __init__(self) -> None:
        self.parts: list[FormPart] = []
        self.is_whole = False
        self._headers: dict[str, str] = {}
        self._name = b""
        self._value = b""
        self._pieces: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        """The functions that the parser calls, by the name of the event."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_to_name,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_to_content,
            "on_part_end": self._end_part,
            "on_end": self._end_form,
        }

    def _begin_part(self) -> None:
        if len(self.parts) == _MAX_PARTS:
            raise MalformedRequest(f"The form has more than {_MAX_PARTS} parts")
        self._headers = {}
        self._pieces = []

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _add_to_content(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _end_part(self) -> None:
        disposition = self._headers.get("content-disposition", "")
        _, options = parse_options_header(disposition)
        content_type, _ = parse_options_header(self._headers.get("content-type", ""))
        self.parts.append(
            FormPart(
                name=options.get(b"name", b"").decode("utf-8", "replace"),
                # The parser ignores `filename*`, the extended form of RFC 5987.
                has_filename=b"filename" in options or "filename*=" in disposition.lower(),
                content_type=content_type.decode("latin-1"),
                content=b"".join(self._pieces),
            )
        )

    def _end_form(self) -> None:
        self.is_whole = True
