"""The contract between exporter and gateway: what a model expects and what its logits mean.

The exporter writes it as JSON into `config.pbtxt`, parameter `vitriton`; the gateway reads it
back through Triton's `ModelConfig` RPC. Pure: no I/O.
Pixels cross as uint8, shape `(height, width, channels)`; logits come back as float32, shape
`(num_labels,)`.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

CONTRACT_PARAMETER = "vitriton"
INPUT_NAME = "pixel_values"
OUTPUT_NAME = "logits"

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Color = Literal["RGB", "L"]
CropRounding = Literal["floor", "half_even"]
Dtype = Literal["fp32", "bf16", "fp16"]
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

# The hub's own rule: one optional namespace, no `--` (which is how `/` is written in folder names).
_MODEL_ID = re.compile(r"(?!.*--)[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_MODEL_ID_MAX_CHARS = 96

PositiveInt = Annotated[int, Field(gt=0)]


class InvalidContract(ValueError):
    """The JSON in `config.pbtxt` is not a contract this version can read."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Size(_Frozen):
    """Height and width in pixels."""

    height: PositiveInt
    width: PositiveInt


class Shares(_Frozen):
    """Height and width as shares of an image's shorter side."""

    height: Annotated[float, Field(gt=0, le=1)]
    width: Annotated[float, Field(gt=0, le=1)]


class Preprocessing(_Frozen):
    """What happens to an upright image before it is sent, in this order."""

    color: Color = "RGB"
    """Colour mode the image is converted to: three channels, or grey in one."""
    first_crop: Shares | None = None
    """Part cut from the middle before resizing, rounded down, at least one pixel."""
    resize: Size | None
    """Exact size, aspect ratio not kept."""
    shortest_edge: PositiveInt | None = None
    """Length of the shorter side, aspect ratio kept; excludes `resize`."""
    resample: Resample
    """Pillow's name of the resampling filter."""
    center_crop: Size | None = None
    """Size cut from the middle after resizing; never larger than what is there."""
    center_crop_rounding: CropRounding = "floor"
    """How half a pixel of offset is rounded: transformers rounds down, timm to the even one."""


class LowPrecision(_Frozen):
    """What half precision changes, against float32 on the same images."""

    max_abs_logit_difference: float
    mean_abs_logit_difference: float
    top1_agreement: Annotated[float, Field(ge=0, le=1)]
    """Share of the images whose best label is the same."""
    images: PositiveInt
    """Number of images compared."""


class Rounding(_Frozen):
    """How far float32 logits are from those of the same model in float64, on the same images."""

    graph: float
    """Largest |Δlogit| of the graph."""
    eager: float
    """Largest |Δlogit| of eager transformers, on those images or on ordinary ones."""


class Parity(_Frozen):
    """How the graph, in float32, compared with eager transformers when it was written."""

    batch_sizes: tuple[PositiveInt, ...]
    """Batch sizes that were compared."""
    max_abs_logit_difference: float
    """Largest |Δlogit| over all of them."""
    tolerance: float
    """Largest |Δlogit| that is accepted as it is."""
    rounding: Rounding | None = None
    """Only where the tolerance was exceeded: the graph is about as near to float64 as eager is."""


CHANNELS: Final[dict[Color, int]] = {"RGB": 3, "L": 1}


class ModelSpec(_Frozen):
    """One model, as the gateway needs to know it."""

    model_id: str
    """Id it is served under, such as `google/vit-base-patch16-224`."""
    architecture: str
    """Class of the transformers model."""
    hub_id: str | None
    """Id of the checkpoint on the hub; none for a local one."""
    revision: str | None
    """Its commit there."""
    weights: Literal["checkpoint", "random"]
    """`random`: only the architecture is real (`--init random`)."""
    checkpoint_sha256: str
    """Over the checkpoint's files, hexadecimal: tells one fine-tune from the next."""
    checkpoint_dtype: str | None = None
    """What the checkpoint's weights are stored in, such as `bf16`, whatever the graph computes in.

    None where they are random, and in entries of exporters that did not write it.
    """
    sha256: str
    """Of `model.pt`, hexadecimal."""
    id2label: Annotated[tuple[str, ...], Field(min_length=1)]
    """Label of each logit."""
    problem_type: ProblemType | None
    """As in the checkpoint's config; none where it says nothing."""
    preprocessing: Preprocessing
    input_size: Size
    """Height and width of `pixel_values`."""
    dtype: Dtype
    """Precision the graph computes in."""
    parity: Parity
    low_precision: LowPrecision | None = None
    """Only where `dtype` is not `fp32`."""
    versions: dict[str, str]
    """Versions of the exporter and its libraries."""


def parse_model_spec(text: str) -> ModelSpec:
    """Read the contract's JSON.

    Raises:
        InvalidContract: It is not JSON, or a field is missing or wrong.
    """
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InvalidContract(f"{where}: {first['msg']}") from exc


def input_dims(spec: ModelSpec) -> tuple[int, int, int]:
    """Shape of one image's `pixel_values`: height, width, channels."""
    size = spec.input_size
    return size.height, size.width, CHANNELS[spec.preprocessing.color]


def is_model_id(model_id: str) -> bool:
    """Whether the hub, and so Vitriton, could have a model of that id."""
    return len(model_id) <= _MODEL_ID_MAX_CHARS and bool(_MODEL_ID.fullmatch(model_id))


def triton_model_name(model_id: str) -> str:
    """Triton's name, and folder, of a model: the id with `/` written as `--`."""
    return model_id.replace("/", "--")


def model_id_of(triton_name: str) -> str:
    """Inverse of `triton_model_name`."""
    return triton_name.replace("--", "/")
