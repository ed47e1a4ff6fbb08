"""An error names the tensor, field, file or library in one line of limited length."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from exporter.diagnosis import reason_with_field
from exporter.entry import read_entry
from exporter.errors import ExportError, as_export_error, reason_of, shortened
from tests.exporter.entries import edit, refusal
from tests.stack import output_of_failed_serve, run_vitriton

MAX_CHARS = 300


@given(st.text(), st.sampled_from([ValueError, KeyError, OSError, ImportError, MemoryError]))
def test_any_text_becomes_one_bounded_line(text: str, kind: type[Exception]) -> None:
    """Also with control characters, surrogates and line ends of any script."""
    for line in (reason_of(kind(text)), str(ExportError(text))):
        assert len(line.splitlines()) <= 1
        assert all(c.isprintable() for c in line)
    assert 0 < len(reason_of(kind(text))) <= MAX_CHARS


@pytest.mark.parametrize(
    ("exc", "wanted"),
    [
        (ValueError("Validation error:\n    expected int"), "Validation error: expected int"),
        (KeyError("x"), "KeyError: 'x'"),
        (EOFError(), "EOFError"),
        (OSError(2, "No such file or directory", "/a/b"), "No such file or directory: /a/b"),
        (
            ImportError("\nA requires the Torchvision library but it was not found in your"),
            "A needs the library Torchvision, which is not installed: `pip install torchvision"
            f" torch=={torch.__version__.partition('+')[0]}`",
        ),
        (
            ModuleNotFoundError("No module named 'a.b'", name="a.b"),
            "it needs the library a, which is not installed: `pip install a`",
        ),
        (ImportError("cannot import name 'x'"), "cannot import name 'x'"),
    ],
)
def test_reason_is_whole(exc: Exception, wanted: str) -> None:
    """It has all lines of the text, and the class of an error whose text is a name."""
    assert reason_of(exc) == wanted


def test_long_text_ends_with_a_sentence_or_a_word() -> None:
    """`…` shows that the text was longer."""
    assert shortened("One is wrong. " + "Two " * 100, 20) == "One is wrong. …"
    assert shortened("word " * 100, 22) == "word word word word…"
    assert shortened("x" * 100, 10) == "x" * 9 + "…"


def test_every_exception_becomes_an_export_error() -> None:
    """An `ExportError` stays as it is."""
    with pytest.raises(ExportError) as foreign, as_export_error("the model cannot be exported"):
        raise MemoryError
    with pytest.raises(ExportError) as own, as_export_error("the model cannot be exported"):
        raise ExportError("no")

    assert str(foreign.value) == "the model cannot be exported: MemoryError"
    assert str(own.value) == "no"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"id2label": {"0": "a", "1": "b"}},
            "classifier.bias is 12 and not 2, classifier.weight is 12x48 and not 2x48",
        ),
        ({"image_size": None}, "config.json: Validation error for field 'image_size': TypeError"),
        ({"id2label": 5}, "config.json, field 'id2label' (5): AttributeError"),
        ({"hidden_act": "x"}, "config.json, field 'hidden_act' (\"x\"): KeyError"),
        ({"problem_type": "x" * 5000}, "problem_type"),
        ({"model_type": "none-such"}, "model type `none-such`"),
    ],
)
def test_config_that_does_not_fit_names_tensors_or_field(
    tiny: Path, tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    """Even if transformers names them only in its log, on a later line, or not at all."""
    edit(tiny / "config.json", **fields)

    assert says in refusal(tiny, tmp_path / "models")


@pytest.mark.parametrize(
    ("seconds_a_try", "says"),
    [(1, "config.json, field 'field5' (5): it fails"), (6, "it fails")],
)
def test_search_for_the_field_ends(tmp_path: Path, seconds_a_try: float, says: str) -> None:
    """A model with thousands of layers takes seconds for each field of its config."""
    content = {f"field{i}": i for i in range(100)}
    (tmp_path / "config.json").write_text(json.dumps(content))
    times = [0.0]

    def load(folder: Path) -> None:
        times.append(times[-1] + seconds_a_try)
        if "field5" in json.loads((folder / "config.json").read_text()):
            raise ValueError

    reason = reason_with_field(
        ValueError("it fails"), tmp_path, "config.json", load, clock=lambda: times[-1]
    )

    assert reason == says
    assert times[-1] < 30


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"image_processor_type": "MyImageProcessor"},
            "field 'image_processor_type' (\"MyImageProcessor\"): Unrecognized image processor",
        ),
        ({"size": {"depth": 1}}, "field 'size' ({\"depth\": 1})"),
        ({"auto_map": 3}, "field 'auto_map' (3)"),
    ],
)
def test_preprocessor_names_its_field(
    tiny: Path, tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    """Transformers would list every processor it knows, on one line of 2.9 kB."""
    edit(tiny / "preprocessor_config.json", **fields)

    line = refusal(tiny, tmp_path / "models")

    assert f"preprocessor_config.json, {says}" in line


def test_folder_without_preprocessor_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Transformers would advise to look for the file on the hub."""
    (tiny / "preprocessor_config.json").unlink()

    line = refusal(tiny, tmp_path / "models")

    assert "has no preprocessor_config.json, which says how images are resized" in line


def test_damaged_shard_is_named(tiny: Path, tmp_path: Path) -> None:
    """Of several files, the error names the damaged one."""
    weights = tiny / "model.safetensors"
    shards = dict.fromkeys(load_file(weights), "whole.safetensors") | {"x": "half.safetensors"}
    (tiny / "half.safetensors").write_bytes(weights.read_bytes()[:1000])
    weights.rename(tiny / "whole.safetensors")
    (tiny / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))

    assert "half.safetensors is damaged: " in refusal(tiny, tmp_path / "models")


def advised_commands(line: str) -> list[list[str]]:
    """The commands in a message, as a shell splits them, without the program."""
    return [shlex.split(command)[1:] for command in re.findall(r"`(\S*vitriton [^`]*)`", line)]


def test_advice_of_serve_is_a_command_that_works(tiny: Path, tmp_path: Path) -> None:
    """Here for pickled weights, which only `export` has an option for."""
    torch.save(load_file(tiny / "model.safetensors"), tiny / "pytorch_model.bin")
    (tiny / "model.safetensors").unlink()

    code, lines = output_of_failed_serve([str(tiny), "--port", "0"], tmp_path)
    export, serve = advised_commands(next(line for line in lines if "error: " in line))
    done = run_vitriton([*export, "--max-batch-size", "1"], tmp_path)

    assert code == 1
    assert done.returncode == 0, done.stderr
    model_id = read_entry(tmp_path / "model_repository" / tiny.name).spec.model_id
    assert serve == ["serve", model_id, "--repository", "model_repository"]
