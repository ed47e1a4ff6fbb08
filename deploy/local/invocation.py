"""Commands that the user can type next, spelled as this program was called."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_NAME: Final = "vitriton"
_ID_TO_CHOOSE: Final = "ORG/NAME"


def vitriton_command() -> str:
    """How to call this program again from the same folder and shell.

    `vitriton` if the shell finds this program by that name, else the path that was typed.
    """
    program = Path(sys.argv[0])
    if program.name != _NAME:
        # Called by `python -m`, as `serve` starts an export: the script is beside the interpreter.
        program = Path(sys.executable).with_name(_NAME)
        if not program.is_file():
            return shlex.join([sys.executable, "-m", "deploy.cli"])
    found = shutil.which(_NAME)
    if found is not None and program.exists() and Path(found).samefile(program):
        return _NAME
    return shlex.quote(str(program))


def export_then_serve(
    source: str, model_id: str | None, options: Sequence[str], repository: Path
) -> str:
    """The two commands that export a checkpoint and then serve it, quoted for the shell.

    Args:
        source: The checkpoint.
        model_id: The id that the model gets without `--name`; if none, the user has to choose one.
        options: Further options of `vitriton export`.
        repository: The model repository.
    """
    name = [] if model_id is not None else ["--name", _ID_TO_CHOOSE]
    folder = str(repository)
    export = shlex.join(["export", source, *options, *name, "--output", folder])
    serve = shlex.join(["serve", model_id or _ID_TO_CHOOSE, "--repository", folder])
    vitriton = vitriton_command()
    return f"`{vitriton} {export}`, then `{vitriton} {serve}`"
