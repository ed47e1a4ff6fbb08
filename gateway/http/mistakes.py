"""Recognise bodies that clients send by mistake, and say what to send instead. Pure."""

import re
from typing import Final

from gateway.http.forms import media_type

CURL_HINT: Final = (
    "if curl sent the file with -d, which leaves line breaks out, use --data-binary @FILE"
)
"""Added to the error for a damaged image if `is_stripped_by_curl` holds."""
_FORM_ENCODED: Final = "application/x-www-form-urlencoded"
_STRIPPED_BYTES: Final = (b"\0", b"\n", b"\r")
_SEND_INSTEAD: Final = 'send the image\'s bytes, or JSON {"inputs": "<base64>"}'
_MISTAKES: Final = (
    (
        # In UTF-16 and UTF-32, with a byte order mark or without.
        rb'(\xff\xfe|\xfe\xff)?\x00{0,3}[\[{"]\x00|(\xfe\xff)?\x00{1,3}[\[{"]',
        "The body is JSON in UTF-16 or UTF-32; send JSON in UTF-8",
    ),
    (rb"\[", f"The body is a JSON list; {_SEND_INSTEAD}"),
    (rb'"', f"The body is a JSON string; {_SEND_INSTEAD}"),
    (
        rb"(inputs|image|file|data|parameters|options)(=|%3D)[^=]",
        f"The body is form-encoded ({_FORM_ENCODED}); {_SEND_INSTEAD}",
    ),
    (rb"https?://", f"The body is a URL, and this server fetches none; {_SEND_INSTEAD}"),
    (
        # A longer text is not the name of a file.
        rb"@?[^\r\n\x00]{1,250}\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|jp2)\s{0,9}\Z",
        "The body is a file's name, not its content; with curl write an @ before the name:"
        " --data-binary @FILE",
    ),
)
_PATTERNS: Final = [(re.compile(start, re.IGNORECASE), text) for start, text in _MISTAKES]


def describe_mistake(text: bytes) -> str | None:
    """An error message for a body that clients send by mistake; None for other bodies.

    Args:
        text: The body without leading white space. It does not begin as an image.
    """
    return next((message for pattern, message in _PATTERNS if pattern.match(text)), None)


def is_stripped_by_curl(body: bytes, content_type: str) -> bool:
    """Whether a body looks like a binary file that `curl -d` has stripped of line breaks and zeros.

    The `Content-Type` alone does not tell: curl also sends it for `--data-binary` and for JSON.
    """
    return (
        media_type(content_type) == _FORM_ENCODED
        and not body.isascii()
        and not any(byte in body for byte in _STRIPPED_BYTES)
    )
