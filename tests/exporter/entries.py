"""Export into a repository, and look at what is in it."""

import json
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from exporter.config_pbtxt import ServingOptions
from exporter.export import ExportRequest, export_model
from gateway.modelspec import ModelSpec

MAX_BATCH = 4


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


def edit(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | fields))
