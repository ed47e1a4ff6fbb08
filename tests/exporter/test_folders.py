"""A checkpoint folder may hold anything; an unusable file is named in the error."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter.digest import checkpoint_digest
from exporter.errors import ExportError
from exporter.folder import ADAPTER_FILES, CheckpointFolder, read_checkpoint_files
from exporter.processor_file import check_processor_file
from exporter.tensors import refuse_adapter_tensors
from tests.exporter.entries import edit, export, refusal
from tests.hub import MODEL, hub, hub_environment
from tests.stack import run_vitriton

Planted = Callable[[Path], object]

GIT_LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 12345\n"


def bind_socket(path: Path) -> None:
    """Bind by the file's name alone: the path of a socket is limited to about 100 bytes."""
    place = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{place}/{path.name}")
    os.close(place)


LONG_LINK = "a link to a name too long"
KINDS: dict[str, tuple[Planted, str]] = {
    "a link to nothing": (
        lambda path: path.symlink_to("/nonexistent/blob"),
        "is a link to a file that is not there",
    ),
    LONG_LINK: (
        lambda path: path.symlink_to("a" * 300),
        "cannot be read: File name too long",
    ),
    "a link to itself": (lambda path: path.symlink_to(path.name), "cannot be read: Too many"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "a pipe": (os.mkfifo, "is no regular file"),
    "a socket": (bind_socket, "is no regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
    # The process's own memory is a regular file whose first byte not even root can read.
    "an unreadable file": (
        lambda path: path.symlink_to("/proc/self/mem"),
        "cannot be read: Input/output error",
    ),
    "an empty file": (lambda path: path.write_bytes(b""), "is empty"),
    "a git-lfs pointer": (lambda path: path.write_text(GIT_LFS), "is a git-lfs pointer"),
    "a web page": (lambda path: path.write_text("<!DOCTYPE html>\n<html>"), "is a web page"),
}


NO_FILE = (
    *("a link to nothing", LONG_LINK, "a link to itself"),
    *("a folder", "a pipe", "a socket", "a device"),
)


def replace(path: Path, plant: Planted) -> None:
    path.unlink(missing_ok=True)
    plant(path)


@pytest.mark.parametrize("kind", KINDS)
def test_other_files_beside_good_weights_change_nothing(
    tiny: Path, tmp_path: Path, kind: str
) -> None:
    """Transformers ignores such files, whatever their names; the folder can be exported again."""
    plant, _ = KINDS[kind]
    for name in ("consolidated.safetensors", "pytorch_model.bin", "model.safetensors.index.json"):
        plant(tiny / name)
    plant(Path(os.fsdecode(os.fsencode(tiny) + b"/\xff.safetensors")))

    first = export(tiny, tmp_path / "models", max_batch_size=1)

    assert first.checkpoint_sha256 == checkpoint_digest(tiny)


@pytest.mark.parametrize("kind", NO_FILE)
def test_processor_config_that_is_no_file_is_ignored(tiny: Path, kind: str) -> None:
    """Transformers reads the other file."""
    plant, _ = KINDS[kind]
    plant(tiny / "processor_config.json")

    files = read_checkpoint_files(CheckpointFolder(tiny, "mine"), False, False)
    check_processor_file(tiny, "mine")

    assert files.weights == (tiny / "model.safetensors",)


def test_empty_settings_in_processor_config_are_the_defaults(tiny: Path, tmp_path: Path) -> None:
    """Transformers' default for a ViT is 224x224, as with an empty `preprocessor_config.json`."""
    (tiny / "processor_config.json").write_text('{"image_processor": {}}')
    (tiny / "preprocessor_config.json").unlink()

    line = refusal(tiny, tmp_path / "models")

    assert "does not take 224x224 images" in line


def test_processor_config_of_a_tokenizer_alone_has_no_settings(tiny: Path, tmp_path: Path) -> None:
    """The error names the file that is missing: `preprocessor_config.json`."""
    (tiny / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    (tiny / "preprocessor_config.json").unlink()

    line = refusal(tiny, tmp_path / "models")

    assert "has no preprocessor_config.json, which says how images are resized" in line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "processor_config.json"])
def test_needed_file_is_named_with_its_fault(
    tiny: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """The export neither waits for ever nor ends in a traceback."""
    plant, says = KINDS[kind]
    if name == "processor_config.json":
        # transformers ignores what is no file there, so the other file must be removed too.
        (tiny / "preprocessor_config.json").unlink()
    replace(tiny / name, plant)

    line = refusal(tiny, tmp_path / "models")

    assert f"{name} {says}" in line


@pytest.mark.parametrize("kind", KINDS)
def test_shard_is_named_with_its_fault(tiny: Path, tmp_path: Path, kind: str) -> None:
    """Transformers itself does not check that a shard is a file."""
    plant, says = KINDS[kind]
    names = load_file(tiny / "model.safetensors")
    (tiny / "model.safetensors").unlink()
    plant(tiny / "model-1-of-1.safetensors")
    edit_index(tiny, dict.fromkeys(names, "model-1-of-1.safetensors"))

    line = refusal(tiny, tmp_path / "models")

    assert "model-1-of-1.safetensors" in line
    assert says in line


def edit_index(folder: Path, weight_map: object) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text('{"metadata": {}}')
    edit(path, weight_map=weight_map)


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [(None, "has no weight_map"), ({"x": "gone.safetensors"}, "gone.safetensors is not there")],
)
def test_index_that_leads_nowhere_is_refused(
    tiny: Path, tmp_path: Path, weight_map: object, says: str
) -> None:
    """An index without its shards holds no weights."""
    (tiny / "model.safetensors").unlink()
    edit_index(tiny, weight_map)

    assert says in refusal(tiny, tmp_path / "models")


BAD_NAMES = {
    "a\0b": "a\ufffdb is a name that no file can have",
    "a\ud800b": "a\ufffdb is a name that no file can have",
    "b" * 5000: "b… cannot be read: File name too long",
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_impossible_name_of_weights_is_named_with_the_field(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    """The system's own reason, "embedded null byte", names neither."""
    edit(tiny / "config.json", transformers_weights=name)

    line = refusal(tiny, tmp_path / "models")

    assert f"{BAD_NAMES[name]} (transformers_weights in config.json)" in line


@pytest.mark.parametrize("name", BAD_NAMES)
def test_impossible_name_of_a_shard_is_named_with_the_field(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    """The system's own reason names neither the file nor the field."""
    (tiny / "model.safetensors").unlink()
    edit_index(tiny, {"x": name})

    line = refusal(tiny, tmp_path / "models")

    assert f"{BAD_NAMES[name]} (weight_map in model.safetensors.index.json)" in line


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\x80\x04K\x01.", GIT_LFS.encode(), b"PK\x03\x04"]
)
def test_file_that_is_no_pickle_is_named(tiny: Path, tmp_path: Path, content: bytes) -> None:
    """Contents: nothing, text, a pickle of a number, a git-lfs pointer, half an archive."""
    (tiny / "model.safetensors").unlink()
    (tiny / "pytorch_model.bin").write_bytes(content)

    assert "pytorch_model.bin" in refusal(tiny, tmp_path / "models", allow_pickle=True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "is not valid JSON: Expecting property name"),
        (b"\xff\xfe{\x00", "is not valid JSON: 'utf-8' codec"),
        (b"\xef\xbb\xbf{}", "is not valid JSON: Unexpected UTF-8 BOM"),
        (b"[" * 200_000, "is not valid JSON: maximum recursion depth"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "is not valid JSON: Exceeds the limit"),
        (b"[1]", "holds no JSON object"),
        (b"null", "holds no JSON object"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_file_that_is_no_json_is_named(
    tiny: Path, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    """The error has the parser's own reason."""
    (tiny / name).write_bytes(content)

    assert f"{name} {says}" in refusal(tiny, tmp_path / "models")


def test_json_over_the_limit_is_not_read(tiny: Path, tmp_path: Path) -> None:
    """The file is sparse: 1 TiB, of which the disk holds one block."""
    with (tiny / "config.json").open("r+b") as file:
        file.truncate(2**40)

    line = refusal(tiny, tmp_path / "models")

    assert "config.json has 1048576 MiB, the limit is 64 MiB" in line


@pytest.mark.parametrize("field", ["num_labels", "num_hidden_layers"])
def test_number_that_would_fill_the_memory_is_refused(
    tiny: Path, tmp_path: Path, field: str
) -> None:
    """Transformers would make this many objects before it reads the weights."""
    edit(tiny / "config.json", **{field: 10**12})

    assert f"{field} in config.json is above" in refusal(tiny, tmp_path / "models")


@pytest.mark.parametrize("source", ["a" * 5000, "/" + "a" * 300, "a\0b", "a\nb", "\ud83d"])
def test_impossible_name_of_a_folder_is_one_line(tmp_path: Path, source: str) -> None:
    """The name is too long, or has a character that no file name can have."""
    line = refusal(source, tmp_path / "models")

    assert "cannot be read" in line or "neither a checkpoint folder nor a hub id" in line


@pytest.mark.parametrize("kind", ["a link to nothing", "a folder"])
def test_command_ends_without_a_traceback(tiny: Path, tmp_path: Path, kind: str) -> None:
    """The command line shows the same error."""
    plant, _ = KINDS[kind]
    plant(tiny / "pytorch_model.bin")

    done = run_vitriton(["export", str(tiny), "--max-batch-size", "1"], tmp_path)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_adapter_beside_its_base_is_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    """The weights lack what was trained; an entry exported before the adapter came is stale."""
    before = checkpoint_digest(tiny)
    (tiny / name).write_text("{}")

    assert "`merge_and_unload()`" in refusal(tiny, tmp_path / "models")
    assert checkpoint_digest(tiny) != before


def test_adapter_alone_is_refused_with_the_way_to_merge_it(tiny: Path, tmp_path: Path) -> None:
    """The usual advice, to name the folder that `save_pretrained` wrote, would not help."""
    (tiny / "config.json").unlink()
    (tiny / "model.safetensors").rename(tiny / "adapter_model.safetensors")
    (tiny / "adapter_config.json").write_text('{"peft_type": "LORA"}')

    line = refusal(tiny, tmp_path / "models")

    assert "holds an adapter (adapter_config.json)" in line
    assert "`merge_and_unload()`" in line


def test_adapter_on_the_hub_is_refused(tiny: Path, tmp_path: Path) -> None:
    """The adapter's file is downloaded so that the export can see it."""
    (tiny / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with hub(tiny) as endpoint:
        done = run_vitriton(["export", MODEL], tmp_path, **hub_environment(endpoint, tmp_path))

    assert done.returncode == 1
    assert f"error: {MODEL} holds an adapter (adapter_config.json)" in done.stderr


PEFT_PARTS = [
    *("lora_A.default", "lora_magnitude_vector.default", "lora_E.default", "vera_lambda_b.default"),
    *("hada_w1_a.default", "lokr_w1.default", "ia3_l.default", "oft_R.default", "boft_s.default"),
    *("hra_u.default", "vblora_logits_A.default", "fourierft_spectrum.default"),
    *("randlora_lambda.default", "bone_block.default", "miss_block.default", "base_layer.weight"),
    *("ln_tuning_layers.default.weight", "modules_to_save.default.weight", "road_theta.default"),
    *("prompt_encoder.default.embedding.weight", "prompt_embeddings", "shira_weight.default"),
    *("trainable_tokens_delta.default", "c3a_kernel.default", "waveft_spectrum.default"),
    *("internal_xlora_classifier.inner.0.weight", "poly_lora_A.default", "poly_router.default"),
]


@pytest.mark.parametrize("part", PEFT_PARTS)
def test_tensor_of_each_peft_method_is_refused(part: str) -> None:
    """Each method adds a part of its own to the name."""
    with pytest.raises(ExportError, match="merge_and_unload"):
        refuse_adapter_tensors("mine", [f"vit.layers.0.attention.q_proj.{part}"])


@pytest.mark.parametrize(
    "name",
    ["backbone.weight", "vit.embeddings.mask_token", "soft.weight", "florals.x", "cls_head.bias"],
)
def test_tensor_of_a_model_is_accepted(name: str) -> None:
    """A method's name inside a longer word does not count."""
    refuse_adapter_tensors("mine", [name])


@pytest.mark.parametrize(
    "added",
    [
        "vit.layers.0.attention.q_proj.lora_A.default.weight",
        "vit.layers.0.attention.q_proj.vblora_logits_A.default",
        "classifier.modules_to_save.default.weight",
        "vit.layers.0.output.adapters.mine.adapter_down.0.weight",
    ],
)
def test_tensors_of_an_adapter_among_the_weights_are_refused(
    tiny: Path, tmp_path: Path, added: str
) -> None:
    """Transformers ignores tensors that the model does not have."""
    weights = load_file(tiny / "model.safetensors")
    save_file(weights | {added: torch.zeros(2, 2)}, tiny / "model.safetensors", {"format": "pt"})

    line = refusal(tiny, tmp_path / "models")

    assert added in line
    assert "`merge_and_unload()`" in line


def test_other_tensors_that_are_not_used_do_no_harm(tiny: Path, tmp_path: Path) -> None:
    """Such as a pooler, which the classifier does not use."""
    weights = load_file(tiny / "model.safetensors")
    added = {"vit.pooler.dense.weight": torch.zeros(48, 48)}
    save_file(weights | added, tiny / "model.safetensors", {"format": "pt"})

    assert export(tiny, tmp_path / "models", max_batch_size=1).weights == "checkpoint"


def test_quantized_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    """Installing the quantization's library would not help."""
    edit(tiny / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})

    assert "has quantized weights" in refusal(tiny, tmp_path / "models")
