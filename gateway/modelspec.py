"""The contract between exporter and gateway: what a model expects and what its logits mean.

The exporter writes it as JSON into `config.pbtxt`, parameter `vitriton`; the gateway reads it
back through Triton's `ModelConfig` RPC. Pure: no I/O.
A model has one of two inputs, by its configuration in Triton: pixels, uint8 of the shape
`(height, width, channels)`, or files, which `docs/gpu.md` describes. Triton returns logits as
float32, shape `(num_labels,)`.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

CONTRACT_PARAMETER = "vitriton"
INPUT_NAME = "pixel_values"
"""Input of a model that takes pixels."""
FILES_INPUT_NAME = "image"
"""Input of a model that takes files: `configs/gpu-jpeg.pbtxt`."""
OUTPUT_NAME = "logits"

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Color = Literal["RGB", "L"]
CropRounding = Literal["floor", "half_even"]
Dtype = Literal["fp32", "bf16", "fp16"]
Device = Literal["cpu", "gpu"]
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

# The hub's own rule: at most one namespace, and no `--`, which stands for `/` in folder names.
_MODEL_ID = re.compile(r"(?!.*--)[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_MODEL_ID_MAX_CHARS = 96

PositiveInt = Annotated[int, Field(gt=0)]


class InvalidContract(ValueError):
    """The JSON in `config.pbtxt` is not a contract that this version can read."""


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
    """The steps for an upright image before it is sent, in this order."""

    color: Color = "RGB"
    """Colour mode that the image is converted to: `RGB` has three channels, `L` is grey in one."""
    first_crop: Shares | None = None
    """Part cut from the middle before resizing, rounded down, at least one pixel."""
    resize: Size | None
    """Exact size, aspect ratio not kept."""
    shortest_edge: PositiveInt | None = None
    """Length of the shorter side, aspect ratio kept; excludes `resize`."""
    resample: Resample
    """Pillow's name of the resampling filter."""
    center_crop: Size | None = None
    """Size cut from the middle after resizing; never larger than the resized image."""
    center_crop_rounding: CropRounding = "floor"
    """How an offset with half a pixel is rounded: transformers rounds down, timm to even."""


class LowPrecision(_Frozen):
    """How far the graph, as it is served, is from float32 on a CPU, on the same images."""

    device: Device = "cpu"
    """Where the graph ran; older exporters did not write it."""
    max_abs_logit_difference: float
    mean_abs_logit_difference: float
    top1_agreement: Annotated[float, Field(ge=0, le=1)]
    """Share of the images that have the same best label in both."""
    images: PositiveInt
    """Number of images compared."""


class Rounding(_Frozen):
    """How far logits in float32 are from those in float64, for one model on the same images."""

    graph: float
    """Largest |Δlogit| of the graph."""
    eager: float
    """Largest |Δlogit| of eager transformers, on those images or on ordinary ones."""


class Parity(_Frozen):
    """How far the graph is from eager transformers, both in float32, measured at export."""

    batch_sizes: tuple[PositiveInt, ...]
    """The batch sizes of the comparison."""
    max_abs_logit_difference: float
    """Largest |Δlogit| over all batch sizes."""
    tolerance: float
    """Largest |Δlogit| that is accepted without a comparison with float64."""
    rounding: Rounding | None = None
    """Set if the tolerance was exceeded; the graph is then about as near to float64 as eager."""


CHANNELS: Final[dict[Color, int]] = {"RGB": 3, "L": 1}


class ModelSpec(_Frozen):
    """What the gateway needs to know about one model."""

    model_id: str
    """Id that the model is served under, such as `google/vit-base-patch16-224`."""
    architecture: str
    """Class of the transformers model."""
    hub_id: str | None
    """Id of the checkpoint on the hub; None for a local checkpoint."""
    revision: str | None
    """Commit of the checkpoint on the hub."""
    weights: Literal["checkpoint", "random"]
    """`random` after `--init random`, which keeps only the architecture."""
    checkpoint_sha256: str
    """SHA-256 over the checkpoint's files, hexadecimal; tells fine-tunes of one model apart."""
    checkpoint_dtype: str | None = None
    """Precision that the checkpoint's weights are stored in, such as `bf16`.

    The graph may compute in another one. None for random weights, and for a contract of an older
    exporter.
    """
    sha256: str
    """SHA-256 of `model.pt`, hexadecimal."""
    id2label: Annotated[tuple[str, ...], Field(min_length=1)]
    """Label of each logit."""
    problem_type: ProblemType | None
    """The one of the checkpoint's config; None if the config has none."""
    preprocessing: Preprocessing
    input_size: Size
    """Height and width of `pixel_values`."""
    dtype: Dtype
    """Precision that the graph computes in."""
    parity: Parity
    low_precision: LowPrecision | None = None
    """Set if `dtype` is not `fp32`, or if the graph ran on a GPU, which rounds fp32 to TF32."""
    versions: dict[str, str]
    """Versions of the exporter and its libraries."""


def parse_model_spec(text: str) -> ModelSpec:
    """Read the contract's JSON.

    Raises:
        InvalidContract: The text is not JSON, or a field is missing or wrong.
    """
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the contract"
        raise InvalidContract(f"{where}: {first['msg']}") from exc


def input_dims(spec: ModelSpec) -> tuple[int, int, int]:
    """Shape of one image's `pixel_values`: height, width, channels."""
    size = spec.input_size
    return size.height, size.width, CHANNELS[spec.preprocessing.color]


def is_model_id(model_id: str) -> bool:
    """Whether the text is a model id by the hub's rule, which is Vitriton's too."""
    return len(model_id) <= _MODEL_ID_MAX_CHARS and bool(_MODEL_ID.fullmatch(model_id))


def triton_model_name(model_id: str) -> str:
    """Name of a model's folder and in Triton: the id with `--` for `/`."""
    return model_id.replace("/", "--")


def model_id_of(triton_name: str) -> str:
    """The model id for a name of `triton_model_name`."""
    return triton_name.replace("--", "/")
