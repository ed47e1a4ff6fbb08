"""A configuration that has a Triton without a GPU decode JPEGs, as `gpu-jpeg` has a GPU do it."""

import shutil
from pathlib import Path
from typing import Final

from tritonclient.grpc import model_config_pb2

from exporter.config_pbtxt import parse_pbtxt, to_pbtxt

CPU_JPEG: Final = "cpu-jpeg"
"""The name of the configuration, for `vitriton serve --profile`."""


def repository_with_cpu_jpeg(source: Path, target: Path) -> Path:
    """Copy a model repository, and add the configuration to each model."""
    shutil.copytree(source, target)
    for file in target.glob("*/configs/gpu-jpeg.pbtxt"):
        config = parse_pbtxt(file.read_text())
        (group,) = config.instance_group
        group.kind, group.count = model_config_pb2.ModelInstanceGroup.KIND_CPU, 1
        del config.model_warmup[1:]
        # Threads are the machine's on a CPU, and there are no CUDA graphs.
        for name in set(config.parameters) - {"vitriton"}:
            del config.parameters[name]
        file.with_name(f"{CPU_JPEG}.pbtxt").write_text(to_pbtxt(config))
    return target
