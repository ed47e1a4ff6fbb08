"""Hugging Face's wire format for `image-classification`: parse a body, render an answer.

Pure. The bytes decide what an image is: clients send wrong and missing content types.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from gateway.classification.postprocess import Prediction
from gateway.errors import InvalidImage, MalformedRequest
from gateway.http.forms import FormPart, is_form, parse_form
from gateway.http.mistakes import describe_mistake
from gateway.http.parameters import (
    OPTION_HEADERS,
    PARAMETER_NAMES,
    json_type,
    parse_options,
    parse_parameters,
    parse_text_parameters,
)
from gateway.imaging.formats import has_image_signature
from gateway.request import ClassificationRequest, Options, Parameters

# A text field of a form with one of these names holds the image as base64.
_IMAGE_FIELDS: Final = frozenset({"inputs", "image", "file"})
_TEXT_FIELDS: Final = PARAMETER_NAMES | {"parameters", "options"}

_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE: Final = b" \t\r\n\v\f"
_ECHO_CHARS: Final = 80


def parse_request(
    body: bytes, headers: Mapping[str, str], query: Mapping[str, str], max_inputs: int
) -> ClassificationRequest:
    """Parse a raw image, a JSON object with base64 `inputs`, a form, or bare base64 text.

    Parameters in the body win over the query string as a whole.

    Args:
        body: The whole body, its content coding removed.
        headers: By lower-case name. Of the content types only `multipart/form-data` is believed.
        query: The URL's parameters.
        max_inputs: Largest number of images in a list.

    Raises:
        MalformedRequest: The body is none of these, or `inputs` is missing.
        InvalidParameters: A parameter is unknown or has a value the task does not take.
        InvalidImage: The body is empty or its base64 is damaged.
    """
    if not body:
        raise InvalidImage("cannot identify image file: the request body is empty")
    content_type = headers.get("content-type", "")
    if has_image_signature(body):
        return ClassificationRequest((body,), _query_parameters(query), _options(headers))
    if is_form(content_type):
        return _parse_form(body, headers, query)
    text = _text_of(body)
    mistake = describe_mistake(text)
    if mistake is not None:
        raise MalformedRequest(mistake)
    if text.startswith(b"{"):
        return _parse_json(text, headers, query, max_inputs)
    return ClassificationRequest((_image_of(body),), _query_parameters(query), _options(headers))


def _query_parameters(query: Mapping[str, str]) -> Parameters:
    return parse_text_parameters(query) if query else Parameters()


def _options(headers: Mapping[str, str], body_options: object = None) -> Options:
    if not body_options and OPTION_HEADERS.keys().isdisjoint(headers):
        return Options()
    return parse_options(headers, body_options if isinstance(body_options, dict) else {})


def _text_of(content: bytes) -> bytes:
    """Text without a byte order mark and without leading white space."""
    return content.removeprefix(b"\xef\xbb\xbf").lstrip(_WHITE_SPACE)


def _image_of(content: bytes) -> bytes:
    """The bytes themselves if they are an image, else what their base64 decodes to."""
    if has_image_signature(content):
        return content
    try:
        return decode_base64(_text_of(content)) or content
    except InvalidImage:
        # Pillow knows formats that have no signature here, so Pillow decides.
        return content


def _parse_json(
    text: bytes, headers: Mapping[str, str], query: Mapping[str, str], max_inputs: int
) -> ClassificationRequest:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise MalformedRequest(f"The body is not valid JSON: {exc}") from exc
    inputs = document.get("inputs", document.get("image"))
    if inputs is None:
        raise MalformedRequest(f"Body needs to provide a inputs key, received: {_excerpt(text)}")
    is_list = isinstance(inputs, list)
    images = _decode_inputs(inputs if is_list else [inputs], max_inputs)
    if "parameters" in document:
        parameters = parse_parameters(document["parameters"])
    else:
        parameters = _query_parameters(query)
    options = _options(headers, document.get("options"))
    return ClassificationRequest(images, parameters, options, is_list)


def _decode_inputs(inputs: list[object], max_inputs: int) -> tuple[bytes, ...]:
    if len(inputs) > max_inputs:
        raise MalformedRequest(
            f"`inputs` holds {len(inputs)} images, and {max_inputs} is the limit here"
            " (GATEWAY_MAX_INPUTS); send them in several requests"
        )
    images = []
    for image in inputs:
        if not isinstance(image, str):
            raise MalformedRequest(
                f"`inputs` must be a string, the base64 of an image, or a list of such strings,"
                f" not {json_type(image)}"
            )
        # A lone surrogate is valid in JSON and not in UTF-8; it is not base64 either way.
        images.append(decode_base64(image.encode("utf-8", "replace")))
    return tuple(images)


def _parse_form(
    body: bytes, headers: Mapping[str, str], query: Mapping[str, str]
) -> ClassificationRequest:
    """The one image of a form; its other fields are parameters and options.

    Blank parts are left out: browsers send one for a file input that was left empty. `parameters`
    and `options` are JSON objects, as in a JSON body. `top_k` and `function_to_apply` may be fields
    of their own.
    """
    parts = [part for part in parse_form(body, headers["content-type"]) if part.content.strip()]
    images = [_image_of_part(part) for part in parts if _holds_image(part)]
    texts = {
        part.name: part.content.decode("utf-8", "replace")
        for part in parts
        if not _holds_image(part)
    }
    if not images:
        raise MalformedRequest(
            "The form has no file; send the image as a part with a filename, an image's"
            " Content-Type or the name `file`"
        )
    if len(images) > 1:
        raise MalformedRequest(
            f"The form has {len(images)} files, and one image is the limit of a form; send several"
            ' as JSON {"inputs": ["<base64>", …]}'
        )
    parameters, options = (_parse_json_field(texts, name) for name in ("parameters", "options"))
    if parameters is not None:
        chosen = parse_parameters(parameters)
    else:
        chosen = _query_parameters(texts if texts.keys() & PARAMETER_NAMES else query)
    return ClassificationRequest((images[0],), chosen, _options(headers, options))


def _holds_image(part: FormPart) -> bool:
    """Whether a part is the image; `filename` is optional in a form (RFC 7578 §4.2).

    Our own text fields are not images, though some libraries give them filenames: `requests`, and
    `FormData` with a `Blob`.
    """
    if part.name in _TEXT_FIELDS or part.content_type == "application/json":
        return False
    return (
        part.has_filename
        or part.name in _IMAGE_FIELDS
        or part.content_type.startswith("image/")
        or part.content_type == "application/octet-stream"
        or _is_binary_image(part.content)
    )


def _is_binary_image(content: bytes) -> bool:
    """Whether these are an image's bytes; a text may begin as some formats do, `BMW` for one."""
    return has_image_signature(content) and not content.isascii()


def _image_of_part(part: FormPart) -> bytes:
    is_text = not part.has_filename and part.content_type in {"", "text/plain"}
    if is_text and not has_image_signature(part.content):
        return decode_base64(part.content)
    return _image_of(part.content)


def _parse_json_field(texts: Mapping[str, str], name: str) -> dict[str, object] | None:
    """The JSON object in a form's field; none without the field or with null.

    Raises:
        MalformedRequest: The field is no JSON object.
    """
    text = texts.get(name)
    if text is None:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise MalformedRequest(f"The form's field `{name}` is not valid JSON: {exc}") from exc
    if value is not None and not isinstance(value, dict):
        raise MalformedRequest(
            f"The form's field `{name}` must be a JSON object, not {json_type(value)}"
        )
    return value


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


def _excerpt(text: bytes) -> str:
    shown = text[:_ECHO_CHARS].decode("utf-8", "replace")
    return repr(shown) + ("…" if len(text) > _ECHO_CHARS else "")


def render_predictions(
    predictions: Sequence[Prediction] | Sequence[Sequence[Prediction]],
) -> bytes:
    """The JSON array of the answer, scores in full double precision."""
    return orjson.dumps(predictions)
