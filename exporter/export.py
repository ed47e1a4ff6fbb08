"""One export from checkpoint to model repository. Read this first."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from exporter.checkpoint import (
    Checkpoint,
    load_checkpoint,
    quiet_libraries,
    read_labels,
    read_problem_type,
)
from exporter.config_pbtxt import ServingOptions, build_model_config, check_options, to_pbtxt
from exporter.device import ServingDevice, serving_device
from exporter.digest import sha256_of
from exporter.errors import NeedsOptions, as_export_error, shortened
from exporter.graph import (
    convert_precision,
    load_graph,
    refuse_device_constants,
    save,
    trace,
)
from exporter.low_precision import describe_low_precision, measure_served
from exporter.optimisation.last_layer import with_short_last_layer
from exporter.precision import Precision, choose_dtype
from exporter.preprocessing import ImageSteps, read_image_steps
from exporter.repository import StagedModel, refuse_unwritable, stage_model
from exporter.sample import Sample, make_sample
from exporter.verify import describe_parity, verify
from gateway.modelspec import (
    Dtype,
    ModelSpec,
    Parity,
    is_model_id,
    triton_model_name,
)

log = logging.getLogger("exporter")

_LIBRARIES: Final = ("torch", "transformers")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One export: its source, its options and its destination."""

    source: str
    """Hub id, checkpoint folder or, with random weights, a preset."""
    repository: Path
    """The model repository; created if it does not exist."""
    name: str | None = None
    """Model id to serve it under; if none, the hub id or the folder's name."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    random_weights: bool = False
    """Take the architecture alone, with seeded random weights."""
    allow_pickle: bool = False
    """Also load `pytorch_model.bin` if there are no safetensors."""
    precision: Precision = "auto"
    """Precision of the graph; `auto` is fp16 on a GPU, else fp32."""
    device: ServingDevice = field(default_factory=serving_device)
    """Where Triton serves the graph."""
    options: ServingOptions = field(default_factory=ServingOptions)
    """How Triton serves the model."""
    replaces: bool = False
    """Remove the model's older versions from the repository."""


def export_model(request: ExportRequest) -> ModelSpec:
    """Load, trace, verify and write one model; the repository changes only if all of it succeeds.

    Raises:
        ExportError: With the reason; the repository is as it was.
    """
    check_options(request.options)
    refuse_unwritable(request.repository)
    dtype = choose_dtype(request.precision, request.device.name)
    with quiet_libraries(), as_export_error(f"{request.source} cannot be exported"):
        log.info("loading %s", request.source)
        checkpoint = load_checkpoint(
            request.source, request.revision, request.random_weights, request.allow_pickle
        )
        model_id = request.name or checkpoint.model_id
        if not is_model_id(model_id):
            options = ["--allow-pickle"] if request.allow_pickle else []
            raise NeedsOptions(
                f"{shortened(model_id)!r} is no model id (letters, digits, '.', '_' and '-', no"
                " '--', with one '/' at most); choose one",
                request.source,
                None,
                *options,
            )
        return _write(checkpoint, model_id, dtype, request)


def _write(
    checkpoint: Checkpoint, model_id: str, dtype: Dtype, request: ExportRequest
) -> ModelSpec:
    steps = read_image_steps(
        checkpoint.image_processor, getattr(checkpoint.model.config, "num_channels", 3)
    )
    sample = make_sample(checkpoint.model, steps, request.options.largest_batch_size)
    # Both can raise an error, so they are read before the work that takes minutes.
    id2label = read_labels(checkpoint.model.config, sample.expected.shape[1])
    problem_type = read_problem_type(checkpoint.model.config)
    name = triton_model_name(model_id)
    with stage_model(request.repository, name, keeps_versions=not request.replaces) as staged:
        log.info("tracing %s in %s", model_id, dtype)
        parity = _build(checkpoint.model, steps, dtype, staged.model_file, sample)
        low_precision = measure_served(staged.model_file, dtype, request.device, sample)
        spec = ModelSpec(
            model_id=model_id,
            architecture=type(checkpoint.model).__name__,
            hub_id=checkpoint.hub_id,
            revision=checkpoint.revision,
            weights=checkpoint.weights,
            checkpoint_sha256=checkpoint.digest,
            checkpoint_dtype=checkpoint.stored_dtype,
            sha256=sha256_of(staged.model_file),
            id2label=id2label,
            problem_type=problem_type,
            preprocessing=steps.preprocessing,
            input_size=steps.input_size,
            dtype=dtype,
            parity=parity,
            low_precision=low_precision,
            versions={"vitriton": version("vitriton")}
            | {library: version(library) for library in _LIBRARIES},
        )
        write_configs(spec, request.options, staged)
    figures = "; ".join(_figures(spec))
    log.info("%s is in %s, version %d: %s", model_id, request.repository, staged.version, figures)
    return spec


def _figures(spec: ModelSpec) -> Iterator[str]:
    """The figures of the comparison, and a warning where transformers gives other scores."""
    yield describe_parity(spec.parity)
    if spec.low_precision is not None:
        yield describe_low_precision(spec.low_precision, spec.dtype)
    if spec.checkpoint_dtype in {"bf16", "fp16"} - {spec.dtype}:
        yield (
            f"the checkpoint is stored in {spec.checkpoint_dtype}, in which transformers.pipeline"
            " computes it unless told otherwise, with other scores"
        )


def _build(model: Any, steps: ImageSteps, dtype: Dtype, path: Path, sample: Sample) -> Parity:
    """Write the graph to `path`, and verify the float32 graph on the CPU."""
    served = with_short_last_layer(model)
    graph = trace(served, steps)
    if dtype == "fp32":
        return verify(_saved(graph, path), sample)
    parity = verify(graph, sample)
    _saved(trace(convert_precision(served, dtype), steps), path)
    return parity


def _saved(graph: torch.jit.ScriptModule, path: Path) -> torch.jit.ScriptModule:
    """Write the graph and load it from the file."""
    save(graph, path)
    saved = load_graph(path)
    refuse_device_constants(saved)
    return saved


def write_configs(spec: ModelSpec, options: ServingOptions, staged: StagedModel) -> None:
    """Write `config.pbtxt` and its variants for `--model-config-name`."""
    for profile, path in staged.config_files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(to_pbtxt(build_model_config(spec, options, profile)), encoding="utf-8")
