"""Parse what a caller chooses: `parameters` and `options`, of a body, a query string or headers.

Pure.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final, cast, get_args

from gateway.errors import InvalidParameters
from gateway.request import DEFAULT_TOP_K, Activation, Options, Parameters

PARAMETER_NAMES: Final = frozenset({"function_to_apply", "top_k"})
OPTION_HEADERS: Final[Mapping[str, str]] = {
    "x-use-cache": "use_cache",
    "x-wait-for-model": "wait_for_model",
    "x-load-model": "load_model",
    "x-scale-up-timeout": "scale_up_timeout_s",
}
"""Header and field of `Options`. The flags may stand in a body's `options` as well."""

_TRUE: Final = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"0", "false", "no", "off", "f", "n"})
_ECHO_CHARS: Final = 80
# What JSON calls a number (RFC 8259 §6), as far as it can be a number of labels.
_NUMBER: Final = re.compile(r"\d{1,9}(\.\d{1,9})?([eE][+-]?\d{1,2})?", re.ASCII)


def parse_parameters(parameters: object) -> Parameters:
    """Check the `parameters` of a body; null means none.

    Raises:
        InvalidParameters: A parameter is unknown or has a value the task does not take.
    """
    if parameters is None:
        return Parameters()
    if not isinstance(parameters, dict):
        raise InvalidParameters(f"`parameters` must be an object, not {json_type(parameters)}")
    given = cast(dict[str, Any], parameters)
    unknown = given.keys() - PARAMETER_NAMES
    if unknown:
        first = sorted(unknown)[0][:_ECHO_CHARS]
        raise InvalidParameters(
            f"unexpected parameter {first!r}; the task image-classification takes"
            " function_to_apply and top_k"
        )
    return Parameters(
        _parse_activation(given.get("function_to_apply")), _parse_top_k(given.get("top_k"))
    )


def parse_text_parameters(texts: Mapping[str, str]) -> Parameters:
    """Parameters of a query string or of a form's text fields. Other keys are ignored.

    Raises:
        InvalidParameters: See `parse_parameters`.
    """
    given: dict[str, object] = {}
    for key in PARAMETER_NAMES:
        value = texts.get(key, "").strip()
        # Browsers send a blank field for an input that was left empty.
        if value:
            is_number = key == "top_k" and _NUMBER.fullmatch(value)
            given[key] = float(value) if is_number else value
    return parse_parameters(given)


def _parse_activation(value: object) -> Activation | None:
    if value is None:
        return None
    known = get_args(Activation)
    if isinstance(value, str) and value.lower() in known:
        return cast(Activation, value.lower())
    raise InvalidParameters(
        f"{str(value)[:_ECHO_CHARS]} is not a valid ClassificationFunction, please select one of"
        f" {list(known)}"
    )


def _parse_top_k(value: object) -> int:
    if value is None:
        return DEFAULT_TOP_K
    # JSON Schema takes 3.0 and 1e3 for integers. Python takes True for one.
    if isinstance(value, int | float) and value is not True and value >= 1 and value == value // 1:
        return int(value)
    raise InvalidParameters(
        f"top_k must be an integer of at least 1, got {str(value)[:_ECHO_CHARS]!r}"
    )


def parse_options(headers: Mapping[str, str], body_options: Mapping[str, object]) -> Options:
    """The options of a request. A value that is not understood is the default, never an error.

    Args:
        headers: Of the request, by lower-case name. A header wins over the body.
        body_options: The object `options` of a JSON body.
    """

    def flag(header: str) -> bool:
        name = OPTION_HEADERS[header]
        in_body = parse_flag(body_options.get(name), getattr(Options(), name))
        return parse_flag(headers.get(header), in_body)

    return Options(
        use_cache=flag("x-use-cache"),
        wait_for_model=flag("x-wait-for-model"),
        load_model=flag("x-load-model"),
        scale_up_timeout_s=_parse_seconds(headers.get("x-scale-up-timeout")),
    )


def parse_flag(value: object, default: bool) -> bool:
    """A boolean of a header or of JSON; `default` for any value that is neither true nor false."""
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


def json_type(value: object) -> str:
    """The JSON type of a parsed value, with its article, for messages."""
    names = {dict: "an object", list: "a list", bool: "a boolean", str: "a string"}
    return names.get(type(value), "null" if value is None else "a number")
