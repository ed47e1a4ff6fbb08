"""The error of an export, and one-line texts for the errors of libraries."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

# About three lines of a terminal.
_MAX_CHARS: Final = 300
# transformers writes this if a model or image processor lacks its library. Some of these texts
# end in an install command, some in a link.
_MISSING_LIBRARY: Final = re.compile(r"(\S+) requires the (\S+) library but it was not found")
# A wheel of these needs one release of torch. A pip command that does not name the installed
# release would replace it.
_NEED_THIS_TORCH: Final = frozenset({"timm", "torchvision"})
# The texts of these errors are often only a name or a number, which say nothing without the class.
_NEED_THEIR_NAME: Final = (
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    EOFError,
)


class ExportError(Exception):
    """The model cannot be exported; the message is one line with the reason and the way out."""

    def __init__(self, message: str) -> None:
        # The text may quote names of folders and texts of libraries, with any characters.
        super().__init__(one_line(message))


class NeedsOptions(ExportError):
    """The model can be exported with other options, which the command line writes out."""

    def __init__(self, message: str, source: str, model_id: str | None, *options: str) -> None:
        """Name the options.

        Args:
            message: The reason, up to the colon before the commands.
            source: The checkpoint.
            model_id: The id that the model gets without `--name`; if none, the user chooses one.
            options: Further options of `vitriton export`.
        """
        super().__init__(message)
        self.source = source
        self.model_id = model_id
        self.options = options


def one_line(text: str) -> str:
    """`text` with single spaces as its only white space, and `�` for unprintable characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def shortened(text: str, max_chars: int = _MAX_CHARS) -> str:
    """`text` on one line, whole or up to the end of a sentence or word, then `…`."""
    line = one_line(text)
    if len(line) <= max_chars:
        return line
    kept = line[: max_chars - 1]
    sentence = max(kept.rfind(end) for end in (". ", "! ", "? "))
    # Cut after a sentence, unless that would use less than half of the space.
    if sentence >= max_chars // 2:
        return f"{kept[: sentence + 1]} …"
    word = kept.rfind(" ")
    return f"{kept[:word] if word >= max_chars // 2 else kept}…"


def reason_of(exc: BaseException) -> str:
    """The text of a library's exception on one line of at most 300 characters."""
    text = str(exc).strip()
    if not text:
        return type(exc).__name__
    if isinstance(exc, ImportError):
        return _missing_library(exc)
    if isinstance(exc, OSError) and exc.strerror:
        return shortened(f"{exc.strerror}: {exc.filename}" if exc.filename else exc.strerror)
    return shortened(f"{type(exc).__name__}: {text}" if isinstance(exc, _NEED_THEIR_NAME) else text)


def _missing_library(exc: ImportError) -> str:
    """Name of a library that is not installed, and the command that installs it."""
    found = _MISSING_LIBRARY.search(str(exc))
    if found:
        subject, library = found[1], found[2]
    elif isinstance(exc, ModuleNotFoundError) and exc.name:
        subject, library = "it", exc.name.partition(".")[0]
    else:
        return shortened(str(exc))
    package = library.lower()
    command = f"pip install {package}"
    if package in _NEED_THIS_TORCH:
        # Without the local version, such as "+cpu", which package indexes do not list.
        command += f" torch=={version('torch').partition('+')[0]}"
    return f"{subject} needs the library {library}, which is not installed: `{command}`"


@contextmanager
def as_export_error(what: str) -> Iterator[None]:
    """Turn every exception of a block into an `ExportError`: `what`, a colon, the reason."""
    try:
        yield
    except ExportError:
        raise
    except Exception as exc:
        # Broad: torch, transformers, safetensors and Pillow read files of strangers in these
        # blocks, and raise anything for a damaged one (`EOFError`, `MemoryError`, assertions).
        raise ExportError(f"{what}: {reason_of(exc)}") from exc
