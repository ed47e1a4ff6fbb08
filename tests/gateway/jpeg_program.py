"""Decode JPEGs in every image mode and print a line of JSON for each.

A test runs this program as another process, so that a crash does not end the tests.

    python -m tests.gateway.jpeg_program < LIST

Each line of the list is a file in base64. Each printed object has pixels or an error by mode.
"""

import base64
import json
import sys
from typing import get_args

from gateway.errors import InvalidImage
from gateway.imaging.images import decode
from gateway.modelspec import Preprocessing, Size
from gateway.settings import DecodeMode

# Small enough for mode `scaled` to decode a quarter of the pixels.
STEPS = Preprocessing(resize=Size(height=8, width=12), resample="bilinear")
LIMIT = 10_000_000


def outcome(data: bytes, mode: DecodeMode) -> list[int] | str:
    """The pixels as a flat list, or the error."""
    try:
        return [int(value) for value in decode(data, STEPS, LIMIT, mode).flatten()]
    except InvalidImage as exc:
        return str(exc)


if __name__ == "__main__":
    for line in sys.stdin:
        file = base64.b64decode(line)
        answer = {mode: outcome(file, mode) for mode in get_args(DecodeMode)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
