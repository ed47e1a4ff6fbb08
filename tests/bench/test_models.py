"""The bench exports a model again when the code that makes it has changed, and copies entries."""

import json
import os
from pathlib import Path

import pytest
import torch
from tritonclient.grpc import model_config_pb2 as pb

from bench.models import copy_entry, entry_of, graph_of, is_fresh, make_null, null_logits
from exporter.config_pbtxt import parse_pbtxt, to_pbtxt
from gateway.modelspec import CONTRACT_PARAMETER


def _file(folder: Path, name: str, changed: int) -> Path:
    path = folder / name
    path.touch()
    os.utime(path, (changed, changed))
    return path


def test_file_newer_than_its_sources_is_fresh(tmp_path: Path) -> None:
    sources = [_file(tmp_path, "a.py", 10), _file(tmp_path, "b.py", 20)]
    made = [_file(tmp_path, "a.pt", 30), _file(tmp_path, "b.pt", 30)]
    assert is_fresh(made, sources)


def test_file_older_than_one_source_is_stale(tmp_path: Path) -> None:
    sources = [_file(tmp_path, "a.py", 10), _file(tmp_path, "b.py", 40)]
    made = [_file(tmp_path, "a.pt", 50), _file(tmp_path, "b.pt", 30)]
    assert not is_fresh(made, sources)


def test_missing_file_is_stale(tmp_path: Path) -> None:
    made = [_file(tmp_path, "a.pt", 30), tmp_path / "b.pt"]
    assert not is_fresh(made, [_file(tmp_path, "a.py", 10)])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the entry `me/vit`, which has one instance and two labels."""
    contract = json.dumps({"model_id": "me/vit", "weights": "random"})
    config = pb.ModelConfig(
        name="me--vit",
        output=[pb.ModelOutput(name="logits", dims=[2])],
        instance_group=[pb.ModelInstanceGroup(count=1)],
        parameters={CONTRACT_PARAMETER: pb.ModelParameter(string_value=contract)},
    )
    graph_of(tmp_path, "me/vit").parent.mkdir(parents=True)
    graph_of(tmp_path, "me/vit").write_bytes(b"graph")
    for file in ("config.pbtxt", "configs/gpu.pbtxt"):
        path = entry_of(tmp_path, "me/vit") / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(to_pbtxt(config))
    return tmp_path


def _set_instances(config: pb.ModelConfig) -> None:
    config.instance_group[0].count = 3


@pytest.mark.parametrize("file", ["config.pbtxt", "configs/gpu.pbtxt"])
def test_copy_of_an_entry_has_its_own_id_and_configuration(repository: Path, file: str) -> None:
    for _ in range(2):
        copy_entry(repository, "me/vit", "me/copy", _set_instances)

    copy = parse_pbtxt((entry_of(repository, "me/copy") / file).read_text())
    assert copy.name == "me--copy"
    assert copy.instance_group[0].count == 3
    contract = json.loads(copy.parameters[CONTRACT_PARAMETER].string_value)
    assert contract == {"model_id": "me/copy", "weights": "random"}
    source = parse_pbtxt((entry_of(repository, "me/vit") / file).read_text())
    assert (source.name, source.instance_group[0].count) == ("me--vit", 1)
    assert graph_of(repository, "me/copy").samefile(graph_of(repository, "me/vit"))


def test_null_model_made_of_a_copy_leaves_the_graph_alone(repository: Path) -> None:
    copy_entry(repository, "me/vit", "me/null")
    make_null(repository, "me/null")

    assert graph_of(repository, "me/vit").read_bytes() == b"graph"
    null = torch.jit.load(str(graph_of(repository, "me/null")))
    assert null(torch.zeros(4, 8, 8, 3)).equal(null_logits(2).expand(4, -1))
