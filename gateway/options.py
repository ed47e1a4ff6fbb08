"""How a request wants to be served, apart from the model's answer: cache, cold start.

Pure. Flags come as headers, as the hosted API takes them, or in the body's `options`; a header
wins. No value of a flag fails a request: what is not understood is the default.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

_TRUE: Final = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"0", "false", "no", "off", "f", "n"})


class Options(NamedTuple):
    """Defaults are the hosted API's."""

    use_cache: bool = True
    """`x-use-cache`: take the answer from the cache, and keep it there."""
    wait_for_model: bool = False
    """`x-wait-for-model`: hold the request until the model is loaded."""
    load_model: bool = True
    """`x-load-model`: have a model loaded that is not."""
    scale_up_timeout_s: float | None = None
    """`x-scale-up-timeout`: hold it for so long at most, in seconds."""


_DEFAULTS: Final = Options()
_HEADERS: Final = {
    "use_cache": "x-use-cache",
    "wait_for_model": "x-wait-for-model",
    "load_model": "x-load-model",
    "scale_up_timeout_s": "x-scale-up-timeout",
}
_ANY_HEADER: Final = frozenset(_HEADERS.values())


def read_options(headers: Mapping[str, str], body_options: Mapping[str, object]) -> Options:
    """The options of a request.

    Args:
        headers: Of the request, by lower-case name.
        body_options: The object `options` of a JSON body.
    """
    if not body_options and _ANY_HEADER.isdisjoint(headers):
        return _DEFAULTS

    def flag(name: str, default: bool) -> bool:
        in_body = parse_flag(body_options.get(name), default)
        return parse_flag(headers.get(_HEADERS[name]), in_body)

    return Options(
        use_cache=flag("use_cache", _DEFAULTS.use_cache),
        wait_for_model=flag("wait_for_model", _DEFAULTS.wait_for_model),
        load_model=flag("load_model", _DEFAULTS.load_model),
        scale_up_timeout_s=_parse_seconds(headers.get(_HEADERS["scale_up_timeout_s"])),
    )


def parse_flag(value: object, default: bool) -> bool:
    """A boolean of a header or of JSON; `default` for whatever is neither true nor false."""
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    return False if text in _FALSE else default


def _parse_seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None
