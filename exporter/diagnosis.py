"""Find out which field of a checkpoint's JSON made transformers fail.

transformers checks some fields and names them; the others fail where they are used, with an error
that names none ("'int' object has no attribute 'items'").
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from exporter.digest import CONFIG_FILES
from exporter.errors import reason_of, shortened
from exporter.folder import is_file

_MAX_VALUE_CHARS: Final = 60


def reason_with_field(
    exc: Exception, folder: Path, name: str, load: Callable[[Path], object]
) -> str:
    """What an exception says, after the field that it is about, where one is found.

    A field is to blame if `load` succeeds without it.

    Args:
        exc: What `load` raised.
        folder: The checkpoint.
        name: The JSON file in it that may be to blame.
        load: Reads a folder's JSON files, and no weights.
    """
    reason = reason_of(exc)
    path = folder / name
    if isinstance(exc, ImportError) or not is_file(path):
        return reason
    content = json.loads(path.read_text(encoding="utf-8"))
    field = _field_to_blame(content, folder, name, load)
    if field is None:
        return reason
    if f"'{field}'" in reason:
        return f"{name}: {reason}"
    value = shortened(json.dumps(content[field]), _MAX_VALUE_CHARS)
    return f"{name}, field {field!r} ({value}): {reason}"


def _field_to_blame(
    content: dict[str, Any], folder: Path, name: str, load: Callable[[Path], object]
) -> str | None:
    with tempfile.TemporaryDirectory(prefix="vitriton-diagnosis-") as place:
        copy = Path(place)
        for other in CONFIG_FILES:
            if other != name and is_file(folder / other):
                shutil.copyfile(folder / other, copy / other)

        def loads(fields: dict[str, Any]) -> bool:
            (copy / name).write_text(json.dumps(fields))
            try:
                load(copy)
            except Exception:
                # Broad on purpose: whatever it is, the field left out has not helped.
                return False
            return True

        if loads(content):
            return None
        return next(
            (field for field in content if loads({k: content[k] for k in content if k != field})),
            None,
        )
