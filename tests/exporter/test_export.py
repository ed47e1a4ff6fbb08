"""What an export writes into the repository."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tritonclient.grpc import model_config_pb2

from exporter.checkpoint import read_labels
from exporter.errors import ExportError
from gateway.modelspec import parse_model_spec
from tests.checkpoints import save_deit_distilled, save_vit
from tests.exporter.entries import MAX_BATCH, config_of, export, files_below


def test_entry_holds_what_triton_needs_and_nothing_else(vit: Path, tmp_path: Path) -> None:
    """One configuration and one graph, with the contract's names, types and shapes."""
    repository = tmp_path / "models"

    spec = export(vit, repository, name="me/my-vit")

    assert files_below(repository).keys() == {
        "me--my-vit/config.pbtxt",
        "me--my-vit/configs/cpu.pbtxt",
        "me--my-vit/configs/gpu.pbtxt",
        "me--my-vit/configs/gpu-jpeg.pbtxt",
        "me--my-vit/1/model.pt",
    }
    config = config_of(repository, "me--my-vit")
    assert (config.name, config.backend, config.platform) == (
        "me--my-vit",
        "pytorch",
        "pytorch_libtorch",
    )
    assert config.max_batch_size == MAX_BATCH
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("pixel_values", model_config_pb2.TYPE_UINT8, [224, 224, 3])
    ]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
        ("logits", model_config_pb2.TYPE_FP32, [12])
    ]
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.HasField("default_queue_policy")
    assert parse_model_spec(config.parameters["vitriton"].string_value) == spec


def test_entry_knows_nothing_of_the_machine_that_made_it(vit: Path, tmp_path: Path) -> None:
    """NVIDIA's image serves the same folder, so no file names a path or the runner."""
    repository = tmp_path / "models"
    export(vit, repository, name="me/my-vit")

    config = config_of(repository, "me--my-vit")
    assert list(config.parameters) == ["vitriton"]
    assert config.runtime == ""
    for content in files_below(repository).values():
        assert str(tmp_path).encode() not in content
        assert b"deploy/local" not in content
    graph = torch.jit.load(str(repository / "me--my-vit" / "1" / "model.pt"))
    assert graph(torch.zeros((3, 224, 224, 3), dtype=torch.uint8)).shape == (3, 12)


def test_contract_says_what_the_checkpoint_says(vit: Path, tmp_path: Path) -> None:
    """Labels in order with repetitions, the graph's hash, the figures for each batch size."""
    repository = tmp_path / "models"

    spec = export(vit, repository)

    model_file = repository / "small-vit" / "1" / "model.pt"
    assert spec.model_id == "small-vit"
    assert spec.id2label[:3] == (
        "label 0, étiquette 0",
        "label 0, étiquette 0",
        "label 2, étiquette 2",
    )
    assert spec.sha256 == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert spec.parity.batch_sizes == (1, 2, 3, MAX_BATCH)
    assert 0 <= spec.parity.max_abs_logit_difference <= spec.parity.tolerance
    assert spec.versions.keys() == {"vitriton", "torch", "transformers"}


def test_distilled_deit_keeps_both_heads(tmp_path: Path) -> None:
    """The graph's logits are the mean of the logits of both heads."""
    checkpoint = save_deit_distilled(tmp_path / "deit")
    repository = tmp_path / "models"
    spec = export(checkpoint, repository)
    graph = torch.jit.load(str(repository / "deit" / "1" / "model.pt"))
    weights = load_file(checkpoint / "model.safetensors")
    for head in ("cls_classifier", "distillation_classifier"):
        weights[f"{head}.weight"] = torch.zeros_like(weights[f"{head}.weight"])
    weights["cls_classifier.bias"] = torch.full((9,), 1.0)
    weights["distillation_classifier.bias"] = torch.full((9,), 4.0)
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})

    export(checkpoint, repository, name="constant")

    constant = torch.jit.load(str(repository / "constant" / "1" / "model.pt"))
    pixels = torch.zeros((1, 224, 224, 3), dtype=torch.uint8)
    assert constant(pixels).tolist() == [[2.5] * 9]
    assert graph(pixels).tolist() != [[2.5] * 9]
    assert spec.preprocessing.center_crop is not None
    assert spec.preprocessing.resample == "bicubic"


def test_exporting_again_adds_a_version(vit: Path, tmp_path: Path) -> None:
    """The old version's files stay; the configuration is the new version's."""
    repository = tmp_path / "models"
    first = export(vit, repository)
    before = files_below(repository)["small-vit/1/model.pt"]

    second = export(vit, repository, max_batch_size=2)

    after = files_below(repository)
    assert {name for name in after if name.endswith(".pt")} == {
        "small-vit/1/model.pt",
        "small-vit/2/model.pt",
    }
    assert after["small-vit/1/model.pt"] == before
    assert config_of(repository, "small-vit").max_batch_size == 2
    assert second.id2label == first.id2label


def test_replacing_drops_the_older_versions(vit: Path, tmp_path: Path) -> None:
    """The version number grows, so that Triton notices the change."""
    repository = tmp_path / "models"
    export(vit, repository)

    export(vit, repository, replaces=True)

    graphs = [name for name in files_below(repository) if name.endswith(".pt")]
    assert graphs == ["small-vit/2/model.pt"]


@pytest.mark.parametrize("preset", ["vit-tiny", "deit-tiny-distilled"])
def test_presets_export_with_the_same_random_weights_each_time(preset: str, tmp_path: Path) -> None:
    """The contract says that they are random; the shapes are those of the published models."""
    fields = {"random_weights": True, "max_batch_size": 1}
    one = export(preset, tmp_path / "one", **fields)
    two = export(preset, tmp_path / "two", **fields)

    first, second = (
        torch.jit.load(str(tmp_path / where / preset / "1" / "model.pt"))
        for where in ("one", "two")
    )
    pixels = torch.full((1, 224, 224, 3), 200, dtype=torch.uint8)
    assert one.weights == two.weights == "random"
    assert len(one.id2label) == 1000
    assert torch.equal(first(pixels), second(pixels))


def test_random_weights_take_a_local_folders_architecture(broken: Path, tmp_path: Path) -> None:
    """A configuration is enough; the folder's weights are not read."""
    (broken / "model.safetensors").unlink()

    spec = export(broken, tmp_path / "models", random_weights=True)

    assert spec.weights == "random"
    assert len(spec.id2label) == 12


@pytest.mark.parametrize(
    ("id2label", "problem_type", "wanted"),
    [
        ({"0": "a", "1": "b", "2": "c"}, None, ("a", "b", "c")),
        ({"2": "c", "0": "a", "1": "b"}, None, ("a", "b", "c")),
        ({"0": "crane", "1": "crane"}, None, ("crane", "crane")),
        ({"0": "日本語", "1": 'quo"te\n', "2": ""}, None, ("日本語", 'quo"te\n', "")),
        ({"0": "score"}, "regression", ("score",)),
        ({"0": "yes"}, None, ("yes",)),
        ({"0": "\ud83d", "1": "a\udc00b"}, None, ("\ufffd", "a\ufffdb")),
        ({"0": "x", "1": "y"}, "multi_label_classification", ("x", "y")),
    ],
)
def test_labels_come_through_by_id(
    tmp_path: Path, id2label: dict[str, str], problem_type: str | None, wanted: tuple[str, ...]
) -> None:
    """The contract has the labels of any script in order, with repetitions."""
    checkpoint = save_vit(
        tmp_path / "vit",
        id2label={int(i): v for i, v in id2label.items()},
        label2id={},
        problem_type=problem_type,
    )

    spec = export(checkpoint, tmp_path / "models", max_batch_size=1)

    assert spec.id2label == wanted
    assert spec.problem_type == problem_type


def test_labels_that_are_missing_or_integers_become_strings(tmp_path: Path) -> None:
    """An id that is larger than the number of logits is refused."""
    config = SimpleNamespace(id2label={0: 5, 2: "c"})

    assert read_labels(config, 3) == ("5", "LABEL_1", "c")
    assert read_labels(SimpleNamespace(id2label=None), 2) == ("LABEL_0", "LABEL_1")
    with pytest.raises(ExportError, match="only 2 logits"):
        read_labels(config, 2)
