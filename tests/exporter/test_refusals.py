"""Refusals are one line with the reason and the way out; nothing is written."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter.entry import read_entry
from exporter.errors import ExportError
from exporter.graph import load_graph
from exporter.preprocessing import timm_steps
from exporter.repository import refuse_unwritable
from gateway.modelspec import parse_model_spec
from tests.exporter.entries import config_of, edit, export, files_below
from tests.stack import VITRITON, run_vitriton


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def drop_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def plant_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


REFUSALS: dict[str, tuple[Any, str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    "half the weights": (damage_weights, "cannot be loaded"),
    "no classifier": (drop_head, "no weights for classifier"),
    "NaN in the weights": (plant_nan, "not finite"),
    "no preprocessor": (
        lambda folder: (folder / "preprocessor_config.json").unlink(),
        "has no preprocessor_config.json, which says how images are resized",
    ),
    "a preprocessor of torchvision alone": (
        lambda folder: edit(
            folder / "preprocessor_config.json", image_processor_type="PPLCNetImageProcessor"
        ),
        "has PPLCNetImageProcessor only for torchvision",
    ),
    "the same under its older name": (
        lambda folder: edit(
            folder / "preprocessor_config.json", image_processor_type="PPLCNetImageProcessorFast"
        ),
        "has PPLCNetImageProcessor only for torchvision",
    ),
    "a preprocessor that is a list": (
        lambda folder: (folder / "preprocessor_config.json").write_text('["a"]'),
        "preprocessor_config.json holds no JSON object",
    ),
    "a preprocessor that is no JSON": (
        lambda folder: (folder / "preprocessor_config.json").write_text("{"),
        "preprocessor_config.json is not valid JSON",
    ),
    "another size than the model's": (
        lambda folder: edit(
            folder / "preprocessor_config.json", size={"height": 192, "width": 192}
        ),
        "does not take 192x192 images",
    ),
    "no fixed size": (
        lambda folder: edit(folder / "preprocessor_config.json", size={"shortest_edge": 224}),
        "different sizes",
    ),
    "a crop larger than the image": (
        lambda folder: edit(
            folder / "preprocessor_config.json",
            do_center_crop=True,
            crop_size={"height": 300, "width": 300},
        ),
        "can be smaller",
    ),
    "padding": (
        lambda folder: edit(folder / "preprocessor_config.json", do_pad=True),
        "do_pad",
    ),
    "a filter that is none": (
        lambda folder: edit(folder / "preprocessor_config.json", resample=9),
        "setting that means nothing",
    ),
    "a size of nothing": (
        lambda folder: edit(folder / "preprocessor_config.json", size=0),
        "ViTImageProcessorPil",
    ),
    "no mean": (
        lambda folder: edit(folder / "preprocessor_config.json", image_mean=None),
        "ViTImageProcessorPil",
    ),
    "patches of nothing": (
        lambda folder: edit(folder / "config.json", patch_size=0),
        "cannot be loaded",
    ),
    "a field of the wrong type": (
        lambda folder: edit(folder / "config.json", hidden_size="wide"),
        "cannot be loaded",
    ),
    "an unknown problem type": (
        lambda folder: edit(folder / "config.json", problem_type="guessing"),
        "guessing",
    ),
    "a language model": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
        "cannot be loaded",
    ),
}


@pytest.mark.parametrize(("damage", "says"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusal_is_one_line_and_changes_nothing(
    vit: Path, broken: Path, tmp_path: Path, damage: Any, says: str
) -> None:
    """A model of the same name in the repository stays as it was."""
    repository = tmp_path / "models"
    export(vit, repository, name="kept", max_batch_size=1)
    before = files_below(repository)
    damage(broken)

    with pytest.raises(ExportError) as caught:
        export(broken, repository, name="kept")

    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert files_below(repository) == before


@pytest.mark.parametrize(
    ("source", "name", "says"),
    [
        ("/nowhere/at/all", None, "neither a checkpoint folder nor a hub id"),
        ("{vit}", "a/b/c", "no model id"),
        ("{vit}", "a--b", "no model id"),
        ("{vit}", "../escape", "no model id"),
    ],
)
def test_impossible_model_ids_are_refused(
    vit: Path, tmp_path: Path, source: str, name: str | None, says: str
) -> None:
    """Nothing is written under a name that is no model id."""
    with pytest.raises(ExportError, match=says):
        export(source.format(vit=vit), tmp_path / "models", name=name)

    assert not (tmp_path / "models").exists()


def test_unwritable_repository_is_one_line(vit: Path, tmp_path: Path) -> None:
    """There is a file in the place of the folder."""
    (tmp_path / "models").write_text("")

    with pytest.raises(ExportError, match="cannot write to"):
        export(vit, tmp_path / "models")


def test_unwritable_repository_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    """Loading may be a long download; here it would end in another error."""
    (tmp_path / "models").write_text("")

    with pytest.raises(
        ExportError, match=rf"cannot write to {tmp_path / 'models'}: Not a directory"
    ):
        export("nobody/nothing", tmp_path / "models")


def test_check_of_a_missing_repository_does_not_make_it(tmp_path: Path) -> None:
    """Folders above it may be missing too."""
    refuse_unwritable(tmp_path / "new" / "models")

    assert list(tmp_path.iterdir()) == []


def hub_cache(checkpoint: Path, folder: Path, model_id: str, commit: str) -> Path:
    """Fill a folder as the hub's cache is after a download."""
    entry = folder / f"models--{model_id.replace('/', '--')}"
    shutil.copytree(checkpoint, entry / "snapshots" / commit)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(commit)
    return folder


def test_hub_id_is_loaded_from_the_cache_with_its_commit(vit: Path, tmp_path: Path) -> None:
    """Without network, a cached model is exported; the last line is the command to serve it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = hub_cache(vit, tmp_path / "hub", "someone/some-vit", commit)

    done = run_vitriton(
        ["export", "someone/some-vit", "--max-batch-size", "1"],
        tmp_path,
        HF_HUB_CACHE=str(cache),
        HF_HUB_OFFLINE="1",
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("vitriton serve someone/some-vit --repository model_repository\n")
    assert len(done.stdout.splitlines()) == 1
    config = config_of(tmp_path / "model_repository", "someone--some-vit")
    assert parse_model_spec(config.parameters["vitriton"].string_value).revision == commit


def test_unreachable_hub_is_one_line(tmp_path: Path) -> None:
    """The line has the way out; exit code 1, nothing is written."""
    done = run_vitriton(
        ["export", "someone/some-vit"],
        tmp_path,
        HF_HUB_CACHE=str(tmp_path / "hub"),
        HF_HUB_OFFLINE="1",
    )

    errors = [line for line in done.stderr.splitlines() if line.startswith("vitriton: error: ")]
    assert done.returncode == 1
    assert len(errors) == 1
    assert "--init random" in errors[0]
    assert not (tmp_path / "model_repository").exists()


@pytest.mark.parametrize("random_weights", [False, True])
def test_timm_checkpoint_without_timm_names_the_library(
    tmp_path: Path, random_weights: bool
) -> None:
    """Timm is no dependency of this project: only exports of its models need it."""
    folder = tmp_path / "timm"
    folder.mkdir()
    pretrained = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": "resnet10t", "num_classes": 1000, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(
        ExportError,
        match=r"needs the library timm, which is not installed: `pip install timm torch==2\.",
    ):
        export(folder, tmp_path / "models", random_weights=random_weights)


@pytest.mark.parametrize(
    ("processor", "says"),
    [
        ("TimmWrapperImageProcessor", "no usable image processor.*TimmWrapper"),
        ("LayoutLMv2ImageProcessor", "itself fails on a .* image: .*`pip install pytesseract`"),
        (
            "DINOv3ViTImageProcessorFast",
            "DINOv3ViTImageProcessor only for torchvision",
        ),
    ],
)
def test_preprocessor_without_its_library_names_it(
    broken: Path, tmp_path: Path, processor: str, says: str
) -> None:
    """The processor cannot be loaded or cannot run; the model could."""
    edit(broken / "preprocessor_config.json", image_processor_type=processor)

    with pytest.raises(ExportError, match=says):
        export(broken, tmp_path / "models")


def test_architecture_that_classifies_no_images_is_refused(tmp_path: Path) -> None:
    """Also with random weights."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')

    with pytest.raises(ExportError, match="is no image classifier"):
        export(tmp_path, tmp_path / "models", random_weights=True)


def test_repository_that_is_a_mounted_volume_is_refused(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename cannot cross file systems; the line names a folder that can be used."""
    stat = Path.stat

    def elsewhere(self: Path, **options: Any) -> os.stat_result:
        result = stat(self, **options)
        if not self.name.endswith(".staging"):
            return result
        return os.stat_result((*result[:2], result.st_dev + 1, *result[3:10]))

    monkeypatch.setattr(Path, "stat", elsewhere)

    with pytest.raises(ExportError, match=r"mounted volume.*name a folder inside it"):
        export(vit, tmp_path / "models")

    assert list((tmp_path / "models").iterdir()) == []


def test_timm_crop_that_the_gateway_lacks_is_refused() -> None:
    """The gateway implements two of timm's crop modes."""
    config = {"input_size": (3, 64, 48), "crop_pct": 0.9, "crop_mode": "border"}

    with pytest.raises(ExportError, match="crop mode 'border' at 64x48"):
        timm_steps(config, "RGB")


def test_incomplete_entries_have_different_errors(vit: Path, tmp_path: Path) -> None:
    """A missing configuration, contract or graph has an error of its own."""
    export(vit, tmp_path / "models", max_batch_size=1)
    entry = tmp_path / "models" / "small-vit"
    (entry / "1" / "model.pt").write_bytes(b"not TorchScript")
    with pytest.raises(ExportError, match="not a TorchScript file"):
        load_graph(entry / "1" / "model.pt")
    (entry / "1" / "model.pt").unlink()
    with pytest.raises(ExportError, match=r"model\.pt is missing"):
        read_entry(entry)
    (entry / "config.pbtxt").write_text('name: "small-vit"')
    with pytest.raises(ExportError, match="no usable contract"):
        read_entry(entry)
    (entry / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(ExportError, match="cannot be read"):
        read_entry(entry)
    (entry / "config.pbtxt").unlink()
    with pytest.raises(ExportError, match="is no entry of a model repository"):
        read_entry(entry)


@pytest.mark.parametrize("model_id", ["a..b", "me/model.git", "a-/b"])
def test_id_the_hub_cannot_have_is_one_line(model_id: str, tmp_path: Path) -> None:
    """huggingface_hub itself refuses the id."""
    with pytest.raises(ExportError, match=r"no hub id|neither a checkpoint"):
        export(model_id, tmp_path / "models")


PLANTED = """
import pathlib
pathlib.Path("pwned").touch()
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
class Config(ViTConfig): model_type = "planted"
class Model(ViTForImageClassification): pass
class Processor(ViTImageProcessorPil): pass
"""


@pytest.mark.parametrize(
    ("file", "auto_map", "options"),
    [
        ("config.json", {"AutoConfig": "planted.Config"}, []),
        ("config.json", {"AutoConfig": "planted.Config"}, ["--init", "random"]),
        (
            "config.json",
            {"AutoConfig": "planted.Config", "AutoModelForImageClassification": "planted.Model"},
            ["--allow-pickle"],
        ),
        ("preprocessor_config.json", {"AutoImageProcessor": "planted.Processor"}, []),
    ],
)
def test_code_of_a_checkpoint_is_never_run(
    broken: Path, tmp_path: Path, file: str, auto_map: dict[str, str], options: list[str]
) -> None:
    """Not even if transformers asks for permission and the answer is yes."""
    (broken / "planted.py").write_text(PLANTED)
    edit(broken / file, auto_map=auto_map)

    subprocess.run(
        [*VITRITON, "export", str(broken), *options],
        cwd=tmp_path,
        input="y\ny\ny\n",
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert not (tmp_path / "pwned").exists()


def save_pickled(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_pickled_weights_need_an_option(broken: Path, tmp_path: Path) -> None:
    """By default they are refused with the way out; `--allow-pickle` loads them."""
    save_pickled(broken)

    with pytest.raises(ExportError, match="--allow-pickle"):
        export(broken, tmp_path / "models")

    assert export(broken, tmp_path / "models", allow_pickle=True).weights == "checkpoint"


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def test_allowed_pickles_still_run_no_code(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only tensors are loaded from a pickle."""
    monkeypatch.chdir(tmp_path)
    (broken / "model.safetensors").unlink()
    torch.save({"classifier.bias": _Evil()}, broken / "pytorch_model.bin")

    with pytest.raises(ExportError, match="cannot be loaded"):
        export(broken, tmp_path / "models", allow_pickle=True)

    assert not (tmp_path / "pwned").exists()
