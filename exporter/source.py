"""What a MODEL that is a path must be: a folder. Needs no torch."""

from pathlib import Path

from exporter.errors import ExportError


def refuse_file(source: str) -> None:
    """Refuse a MODEL that is a regular file: weights, a graph or an archive, without the rest.

    Raises:
        ExportError: With the folder to name instead.
    """
    path = Path(source)
    if not path.is_file():
        return
    if (path.parent / "config.json").is_file():
        way_out = f"name the folder that it is in: {path.parent}"
    else:
        way_out = (
            "name the folder that `save_pretrained` wrote, with config.json,"
            " preprocessor_config.json and *.safetensors"
        )
    raise ExportError(f"{source} is a file, and a model is made from a whole checkpoint; {way_out}")
