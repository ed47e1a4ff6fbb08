"""Find out which field of a checkpoint's JSON made transformers fail.

transformers checks some fields and names them in the error. A wrong value of another field fails
where it is used, in an error that names no field ("'int' object has no attribute 'items'").
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from exporter.digest import CONFIG_FILES
from exporter.errors import reason_of, shortened
from exporter.folder import is_file

_MAX_VALUE_CHARS: Final = 60
# The search builds the model once for each field, and a deep model takes seconds to build.
_MAX_SEARCH_S: Final = 20.0


def reason_with_field(
    exc: Exception,
    folder: Path,
    name: str,
    load: Callable[[Path], object],
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """What an exception says, with the field that causes it in front if one is found.

    A field is the cause if `load` succeeds without it. After 20 s no further field is tried.

    Args:
        exc: What `load` raised.
        folder: The checkpoint.
        name: The JSON file in it that may have the wrong field.
        load: Reads a folder's JSON files, and no weights.
        clock: Returns the time in seconds; only differences count.
    """
    reason = reason_of(exc)
    path = folder / name
    if isinstance(exc, ImportError) or not is_file(path):
        return reason
    content = json.loads(path.read_text(encoding="utf-8"))
    end = clock() + _MAX_SEARCH_S
    field = _field_to_blame(content, folder, name, load, lambda: clock() < end)
    if field is None:
        return reason
    if f"'{field}'" in reason:
        return f"{name}: {reason}"
    value = shortened(json.dumps(content[field]), _MAX_VALUE_CHARS)
    return f"{name}, field {field!r} ({value}): {reason}"


def _field_to_blame(
    content: dict[str, Any],
    folder: Path,
    name: str,
    load: Callable[[Path], object],
    has_time: Callable[[], bool],
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
                # Broad: transformers raises anything for a wrong field. Whatever it raises, it
                # cannot load the file without the field that was left out either.
                return False
            return True

        if loads(content):
            return None
        for field in takewhile(lambda _: has_time(), content):
            if loads({k: content[k] for k in content if k != field}):
                return field
        return None
