"""Tell what a body is that holds neither an image nor a request, and what to send instead. Pure."""

import re
from typing import Final

from gateway.http.forms import media_type

CURL_HINT: Final = (
    "if curl sent the file with -d, which leaves line breaks out, use --data-binary @FILE"
)
"""What to try when a damaged image `is_stripped_by_curl`."""
_FORM_ENCODED: Final = "application/x-www-form-urlencoded"
_LOST_BYTES: Final = (b"\0", b"\n", b"\r")
_WAY_OUT: Final = 'send the image\'s bytes, or JSON {"inputs": "<base64>"}'
_MISTAKES: Final = (
    (
        # In UTF-16 and UTF-32, with a byte order mark or without.
        rb'(\xff\xfe|\xfe\xff)?\x00{0,3}[\[{"]\x00|(\xfe\xff)?\x00{1,3}[\[{"]',
        "The body is JSON in UTF-16 or UTF-32; send JSON in UTF-8",
    ),
    (rb"\[", f"The body is a JSON list; {_WAY_OUT}"),
    (rb'"', f"The body is a JSON string; {_WAY_OUT}"),
    (
        rb"(inputs|image|file|data|parameters|options)(=|%3D)[^=]",
        f"The body is form-encoded ({_FORM_ENCODED}); {_WAY_OUT}",
    ),
    (rb"https?://", f"The body is a URL, and this server fetches none; {_WAY_OUT}"),
    (
        # Of a reasonable length: a longer text is no name.
        rb"@?[^\r\n\x00]{1,250}\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|jp2)\s{0,9}\Z",
        "The body is a file's name, not its content; with curl write an @ before the name:"
        " --data-binary @FILE",
    ),
)
_PATTERNS: Final = [(re.compile(start, re.IGNORECASE), text) for start, text in _MISTAKES]


def describe_mistake(text: bytes) -> str | None:
    """What the body is and what to send, for bodies that clients send by mistake; else none.

    Args:
        text: The body without leading white space. It has no image's signature.
    """
    return next((message for pattern, message in _PATTERNS if pattern.match(text)), None)


def is_stripped_by_curl(body: bytes, content_type: str) -> bool:
    """Whether a body looks like a binary file that `curl -d` has stripped of line breaks and zeros.

    curl writes the same type for `--data-binary`, and for JSON.
    """
    return (
        media_type(content_type) == _FORM_ENCODED
        and not body.isascii()
        and not any(lost in body for lost in _LOST_BYTES)
    )
