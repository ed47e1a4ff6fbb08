"""The models that are measured: a null model that costs nothing, and ViTs with random weights."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tritonclient.grpc import model_config_pb2 as pb

import exporter
from exporter.config_pbtxt import parse_pbtxt, to_pbtxt
from gateway.modelspec import CONTRACT_PARAMETER, triton_model_name

WORK: Final = Path("bench/.work")
NULL: Final = "bench/null"
TINY: Final = "bench/vit-tiny"
BASE: Final = "bench/vit-base"
BASE_BF16: Final = "bench/vit-base-bf16"

_EXPORT_TIMEOUT_S: Final = 600.0
_SOURCES: Final = [
    *Path(exporter.__file__).parent.rglob("*.py"),
    *map(Path(__file__).with_name, ("models.py", "raw_graph.py")),
]


@dataclass(frozen=True, slots=True)
class BenchModel:
    """One entry of the bench's model repository."""

    model_id: str
    preset: str
    precision: str
    max_batch_size: int | None
    """If none, the exporter's default."""


def bench_models(*, has_bf16: bool) -> list[BenchModel]:
    """The models that `make bench` measures on a CPU."""
    models = [
        BenchModel(NULL, "vit-tiny", "fp32", 64),
        BenchModel(TINY, "vit-tiny", "fp32", None),
        BenchModel(BASE, "vit-base", "fp32", None),
    ]
    if has_bf16:
        models.append(BenchModel(BASE_BF16, "vit-base", "bf16", None))
    return models


def entry_of(repository: Path, model_id: str) -> Path:
    """Folder of a model in a repository."""
    return repository / model_id.replace("/", "--")


def graph_of(repository: Path, model_id: str) -> Path:
    """Path of a model's `model.pt`."""
    return entry_of(repository, model_id) / "1" / "model.pt"


def raw_graph_of(repository: Path, model_id: str) -> Path:
    """Path of the graph of transformers' own model; the null model has none."""
    return (
        repository.with_name(f"{repository.name}-raw") / f"{entry_of(repository, model_id).name}.pt"
    )


def prepare(repository: Path, models: list[BenchModel]) -> None:
    """Export the models that the repository lacks, or that an older exporter has made."""
    for model in models:
        graph, raw = (of(repository, model.model_id) for of in (graph_of, raw_graph_of))
        if is_fresh([graph] if model.model_id == NULL else [graph, raw], _SOURCES):
            continue
        export(repository, model)
        if model.model_id == NULL:
            make_null(repository, NULL)
        else:
            traced = [model.preset, model.precision, str(raw)]
            argv = [sys.executable, "-m", "bench.raw_graph", *traced]
            subprocess.run(argv, check=True, timeout=_EXPORT_TIMEOUT_S)


def export(repository: Path, model: BenchModel) -> None:
    """Export a model with `vitriton export`, in place of the entry that is there."""
    shutil.rmtree(entry_of(repository, model.model_id), ignore_errors=True)
    print(f"bench: exporting {model.model_id}", file=sys.stderr, flush=True)
    argv = [sys.executable, "-m", "deploy.cli", "export", model.preset]
    arguments = ["--init", "random", "--name", model.model_id, "--output", str(repository)]
    arguments += ["--precision", model.precision]
    if model.max_batch_size is not None:
        arguments += ["--max-batch-size", str(model.max_batch_size)]
    subprocess.run([*argv, *arguments], check=True, timeout=_EXPORT_TIMEOUT_S)


def is_exported(repository: Path, model_id: str) -> bool:
    """Whether today's exporter has written the entry."""
    return is_fresh([graph_of(repository, model_id)], _SOURCES)


def copy_entry(
    repository: Path,
    model_id: str,
    copy_id: str,
    change: Callable[[pb.ModelConfig], None] = lambda _: None,
) -> None:
    """Write a copy of an entry under another id; the copy shares the files of its weights.

    Args:
        repository: The model repository.
        model_id: The entry to copy.
        copy_id: Id of the copy; an entry that has it already is replaced.
        change: Called with each configuration of the copy, to edit it in place.
    """
    copy = entry_of(repository, copy_id)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(entry_of(repository, model_id), copy, copy_function=os.link)
    for file in copy.rglob("*.pbtxt"):
        config = parse_pbtxt(file.read_text())
        config.name = triton_model_name(copy_id)
        contract = config.parameters[CONTRACT_PARAMETER]
        spec = json.loads(contract.string_value) | {"model_id": copy_id}
        contract.string_value = json.dumps(spec)
        change(config)
        # The linked file is the other entry's as well.
        file.unlink()
        file.write_text(to_pbtxt(config))


def is_fresh(made: list[Path], sources: list[Path]) -> bool:
    """Whether all of `made` are newer than all of `sources`."""
    changed = max(path.stat().st_mtime for path in sources)
    return all(path.exists() and path.stat().st_mtime > changed for path in made)


def null_logits(labels: int) -> torch.Tensor:
    """The null model's logits, `(1, labels)`; all differ, so that ranking has to sort them."""
    return torch.randn(1, labels, generator=torch.Generator().manual_seed(0))


class _Constant(torch.nn.Module):
    def __init__(self, labels: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(null_logits(labels), requires_grad=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(pixel_values.shape[0], -1).contiguous()


def make_null(repository: Path, model_id: str) -> None:
    """Replace the graph of an entry by one that returns constants."""
    config = parse_pbtxt((entry_of(repository, model_id) / "config.pbtxt").read_text())
    # The file may be a link to another entry's graph.
    graph_of(repository, model_id).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = torch.jit.script(_Constant(config.output[0].dims[0]).eval())
        torch.jit.save(graph, str(graph_of(repository, model_id)))
