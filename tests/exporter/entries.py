"""Export into a repository, and read what is in it."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from exporter.config_pbtxt import ServingOptions
from exporter.errors import ExportError
from exporter.export import ExportRequest, export_model
from gateway.modelspec import ModelSpec

MAX_BATCH = 4
# Most characters of an error, not counting the name of the folder.
MAX_LINE_CHARS = 500


def export(
    source: Path | str, repository: Path, max_batch_size: int = MAX_BATCH, **fields: Any
) -> ModelSpec:
    options = fields.pop("options", ServingOptions(max_batch_size))
    return export_model(ExportRequest(str(source), repository, options=options, **fields))


def config_of(repository: Path, name: str, variant: str = "config.pbtxt") -> Any:
    return text_format.Parse(
        (repository / name / variant).read_text(), model_config_pb2.ModelConfig()
    )


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusal(source: Path | str, repository: Path, **fields: Any) -> str:
    """The one-line error of an export that writes nothing."""
    with pytest.raises(ExportError) as caught:
        export(source, repository, max_batch_size=1, **fields)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert len(line.replace(str(source), "")) <= MAX_LINE_CHARS
    assert not repository.exists()
    return line


def edit(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | fields))
