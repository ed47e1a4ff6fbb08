"""What the backend needs from a model's `config.pbtxt`. Pure."""

import json
from typing import Any, Final, NamedTuple

from .fitting import Filter

# Names that the exporter writes; `gateway.modelspec` has them too.
_FILES_INPUT: Final = "image"
_CONTRACT: Final = "vitriton"
_CHANNELS: Final = {"RGB": 3, "L": 1}
_GRAPH_SIZES: Final = "CUDA_GRAPH_BATCH_SIZES"
_DEFAULT_MODEL_FILE: Final = "model.pt"


class Configuration(NamedTuple):
    """A model's configuration."""

    input_name: str
    output_name: str
    takes_files: bool
    """Its input is files, which the backend decodes, and not pixels."""
    input_shape: tuple[int, int, int]
    """Of one image in the batch: height, width, channels."""
    resample: Filter
    """For a model that takes files. The gateway sends pixels where it is another filter."""
    most_images: int
    """Most images in a batch."""
    cuda_graph_sizes: list[int]
    """Batch sizes to capture on a GPU; empty for none."""
    model_file: str
    instances: int
    """On all devices together."""
    threads: int | None
    """For computing; None for torch's own number."""
    interop_threads: int | None


def read_configuration(config: dict[str, Any]) -> Configuration:
    """Read Triton's configuration, as its JSON.

    Raises:
        ValueError: The model has another number of inputs or outputs than one, or no contract.
    """
    model_input, parameters = _only(config["input"], "input"), config["parameters"]
    takes_files = model_input["name"] == _FILES_INPUT
    steps: dict[str, Any] = {}
    shape = tuple(int(edge) for edge in model_input["dims"])
    if takes_files:
        if _CONTRACT not in parameters:
            raise ValueError(f"a model that takes files needs the parameter `{_CONTRACT}`")
        contract = json.loads(parameters[_CONTRACT]["string_value"])
        steps, size = contract["preprocessing"], contract["input_size"]
        shape = size["height"], size["width"], _CHANNELS[steps["color"]]
    height, width, channels = shape

    def number(name: str) -> int | None:
        return int(parameters[name]["string_value"]) if name in parameters else None

    sizes = parameters.get(_GRAPH_SIZES, {}).get("string_value", "")
    resample: Filter = "bicubic" if steps.get("resample") == "bicubic" else "bilinear"
    return Configuration(
        input_name=model_input["name"],
        output_name=_only(config["output"], "output")["name"],
        takes_files=takes_files,
        input_shape=(height, width, channels),
        resample=resample,
        most_images=max(1, config["max_batch_size"]),
        cuda_graph_sizes=[int(size) for size in sizes.split(",") if size.strip()],
        model_file=config.get("default_model_filename") or _DEFAULT_MODEL_FILE,
        instances=sum(
            group["count"] * max(1, len(group.get("gpus", [])))
            for group in config["instance_group"]
        ),
        threads=number("INTRA_OP_THREAD_COUNT"),
        interop_threads=number("INTER_OP_THREAD_COUNT"),
    )


def _only(tensors: list[dict[str, Any]], what: str) -> dict[str, Any]:
    """The only input or output.

    Raises:
        ValueError: There is none, or more than one.
    """
    if len(tensors) != 1:
        raise ValueError(f"a model must have one {what}, this one has {len(tensors)}")
    return tensors[0]
