"""Verify an entry of a model repository again, against its checkpoint."""

import logging
from pathlib import Path

from exporter.checkpoint import load_checkpoint, quiet_libraries, read_labels, read_problem_type
from exporter.device import ServingDevice, serving_device
from exporter.entry import check_hash, read_entry
from exporter.errors import ExportError, as_export_error
from exporter.graph import load_graph, refuse_device_constants
from exporter.low_precision import describe_low_precision, measure_served
from exporter.preprocessing import read_image_steps
from exporter.sample import make_sample
from exporter.verify import describe_parity, verify
from gateway.modelspec import ModelSpec

log = logging.getLogger("exporter")


def check_entry(
    entry: Path, source: str | None, allow_pickle: bool, device: ServingDevice | None = None
) -> ModelSpec:
    """Compare an entry with the checkpoint it was made from, by the same checks as an export.

    Args:
        entry: The model's folder in the repository.
        source: The checkpoint; if none, the hub's model of the entry's id and commit.
        allow_pickle: Also load pickled weights.
        device: Where Triton serves the graph; if none, as `serving_device` finds.

    Raises:
        ExportError: The two differ, or one of them cannot be read.
    """
    with quiet_libraries(), as_export_error(f"{entry} cannot be checked"):
        return _check(entry, source, allow_pickle, device or serving_device())


def _check(entry: Path, source: str | None, allow_pickle: bool, device: ServingDevice) -> ModelSpec:
    found = read_entry(entry)
    check_hash(found)
    spec, max_batch_size = found.spec, found.max_batch_size
    if source is None and spec.revision is None:
        raise ExportError(
            f"{entry} was not made from the hub; name its checkpoint: vitriton export CHECKPOINT"
            f" --check {entry}"
        )
    checkpoint = load_checkpoint(
        source or spec.hub_id or spec.model_id,
        None if source else spec.revision,
        spec.weights == "random",
        allow_pickle,
    )
    steps = read_image_steps(
        checkpoint.image_processor, getattr(checkpoint.model.config, "num_channels", 3)
    )
    sample = make_sample(checkpoint.model, steps, max_batch_size)
    if (steps.preprocessing, steps.input_size) != (spec.preprocessing, spec.input_size):
        raise ExportError(f"{entry} has another preprocessing than its checkpoint")
    if read_labels(checkpoint.model.config, sample.expected.shape[1]) != spec.id2label:
        raise ExportError(f"{entry} has other labels than its checkpoint")
    if read_problem_type(checkpoint.model.config) != spec.problem_type:
        raise ExportError(f"{entry} has another problem_type than its checkpoint")
    graph = load_graph(found.model_file)
    refuse_device_constants(graph)
    figures = []
    # The repository does not keep the float32 graph that a half-precision graph was traced beside.
    if spec.dtype == "fp32":
        figures.append(describe_parity(verify(graph, sample)))
    low_precision = measure_served(found.model_file, spec.dtype, device, sample)
    if low_precision is not None:
        figures.append(describe_low_precision(low_precision, spec.dtype))
    log.info("%s is what its checkpoint says: %s", entry, "; ".join(figures))
    return spec
