"""The one error of an export."""


class ExportError(Exception):
    """The model cannot be exported; the message is one line with the reason and the way out."""


def first_line(exc: BaseException) -> str:
    """What a foreign exception says, without the rest of its text."""
    text = str(exc).strip()
    return text.splitlines()[0] if text else type(exc).__name__
