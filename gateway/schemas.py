"""Hugging Face's wire format for `image-classification`: parse a body, render an answer.

Pure. What counts as an image is told by the bytes: clients send wrong and missing content types.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

import orjson

from gateway.errors import InvalidImage, InvalidParameters, MalformedRequest
from gateway.images import has_image_signature
from gateway.postprocess import Activation, Prediction

DEFAULT_TOP_K: Final = 5

_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE: Final = b" \t\r\n\v\f"
_ECHO_CHARS: Final = 80
# More would be no number of labels, and Python refuses to convert thousands.
_MAX_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the caller may choose."""

    function_to_apply: Activation | None = None
    """None: the model's own default."""
    top_k: int = DEFAULT_TOP_K
    """Number of labels, at least 1; more than the model has means all."""


@dataclass(frozen=True, slots=True)
class ClassificationRequest:
    """One image, still encoded, and its parameters."""

    image: bytes
    parameters: Parameters


def parse_request(body: bytes, query: Mapping[str, str]) -> ClassificationRequest:
    """Take a raw image, a JSON object with base64 `inputs`, or bare base64 text.

    Parameters in the body win over the query string as a whole.

    Raises:
        MalformedRequest: The body is none of the three, or `inputs` is missing.
        InvalidParameters: A parameter is unknown or has a value the task does not take.
        InvalidImage: The body is empty or its base64 is damaged.
    """
    if not body:
        raise InvalidImage("cannot identify image file: the request body is empty")
    if has_image_signature(body):
        return ClassificationRequest(body, _parse_query(query))
    text = body.removeprefix(b"\xef\xbb\xbf").lstrip(_WHITE_SPACE)
    if text.startswith(b"{"):
        return _parse_json(text, query)
    try:
        image = decode_base64(text) or body
    except InvalidImage:
        image = body
    # Pillow knows more formats than there are signatures; it has the last word.
    return ClassificationRequest(image, _parse_query(query))


def _parse_json(text: bytes, query: Mapping[str, str]) -> ClassificationRequest:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise MalformedRequest(f"The body is not valid JSON: {exc}") from exc
    inputs = document.get("inputs", document.get("image"))
    if inputs is None:
        raise MalformedRequest(f"Body needs to provide a inputs key, received: {_excerpt(text)}")
    if not isinstance(inputs, str):
        raise MalformedRequest(
            f"`inputs` must be a string, the base64 of an image, not {_json_type(inputs)}"
        )
    if "parameters" in document:
        parameters = parse_parameters(document["parameters"])
    else:
        parameters = _parse_query(query)
    return ClassificationRequest(decode_base64(inputs.encode()), parameters)


def decode_base64(text: bytes) -> bytes:
    """Bytes of base64 text: a data URI, white space, URL-safe letters and no padding all pass.

    Raises:
        InvalidImage: It is not base64.
    """
    if text.startswith((b"http://", b"https://")):
        raise InvalidImage(
            "`inputs` is a URL, and this server fetches none; send the image's bytes or its base64"
        )
    if text.startswith(b"data:"):
        text = text[text.find(b",") + 1 :]
    letters = text.translate(_URL_SAFE, _WHITE_SPACE).rstrip(b"=")
    try:
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidImage(
            f"Incorrect image source. `inputs` must be a base64 encoded image, got {_excerpt(text)}"
        ) from exc


def parse_parameters(parameters: object) -> Parameters:
    """Check the `parameters` of a body; null means none.

    Raises:
        InvalidParameters: See `parse_request`.
    """
    if parameters is None:
        return Parameters()
    if not isinstance(parameters, dict):
        raise InvalidParameters(f"`parameters` must be an object, not {_json_type(parameters)}")
    given = cast(dict[str, Any], parameters)
    unknown = given.keys() - {"function_to_apply", "top_k"}
    if unknown:
        first = sorted(unknown)[0][:_ECHO_CHARS]
        raise InvalidParameters(
            f"unexpected parameter {first!r}; the task image-classification takes"
            " function_to_apply and top_k"
        )
    return Parameters(
        _parse_activation(given.get("function_to_apply")), _parse_top_k(given.get("top_k"))
    )


def _parse_query(query: Mapping[str, str]) -> Parameters:
    # Keys of other makers (cache busters, tracing) are nobody's mistake in a URL.
    given: dict[str, object] = {}
    for key in ("function_to_apply", "top_k"):
        value = query.get(key)
        if value is not None:
            is_number = key == "top_k" and value.isdecimal() and len(value) <= _MAX_DIGITS
            given[key] = int(value) if is_number else value
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
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise InvalidParameters(
        f"top_k must be an integer of at least 1, got {str(value)[:_ECHO_CHARS]!r}"
    )


def _excerpt(text: bytes) -> str:
    shown = text[:_ECHO_CHARS].decode("utf-8", "replace")
    return repr(shown) + ("…" if len(text) > _ECHO_CHARS else "")


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", str: "a string"}
    return names.get(type(value), "null" if value is None else "a number")


def render_predictions(predictions: Sequence[Prediction]) -> bytes:
    """The JSON array of the answer, scores in full double precision."""
    return orjson.dumps(predictions)


def render_error(message: str, error_type: str) -> bytes:
    """The JSON object of every answer that is not 2xx."""
    return orjson.dumps({"error": message, "error_type": error_type})
