"""Trace transformers' own model of a preset, the graph that ours is compared with.

    python -m bench.raw_graph vit-tiny fp32 FILE

`vitriton export` changes the model: it leaves out what no logit depends on
(docs/decisions/0012-the-last-layer.md).
"""

import argparse
from pathlib import Path
from typing import get_args

from exporter.checkpoint import load_checkpoint, quiet_libraries
from exporter.graph import convert_precision, save, trace
from exporter.preprocessing import read_image_steps
from gateway.modelspec import Dtype


def main() -> None:
    """Write the graph, with the weights that `vitriton export --init random` takes."""
    parser = argparse.ArgumentParser(description="Trace a preset as transformers has it.")
    parser.add_argument("preset")
    parser.add_argument("dtype", choices=get_args(Dtype))
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    with quiet_libraries():
        checkpoint = load_checkpoint(options.preset, None, random_weights=True, allow_pickle=False)
        steps = read_image_steps(checkpoint.image_processor, 3)
        graph = trace(convert_precision(checkpoint.model, options.dtype), steps)
    options.file.parent.mkdir(exist_ok=True)
    # An interrupted run must not leave half a file under the final name.
    unfinished = options.file.with_suffix(".unfinished")
    save(graph, unfinished)
    unfinished.replace(options.file)


if __name__ == "__main__":
    main()
