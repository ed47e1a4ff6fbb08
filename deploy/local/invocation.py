"""How this program was called, for lines that tell the user what to run next."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_NAME: Final = "vitriton"
_ID_TO_CHOOSE: Final = "ORG/NAME"


def vitriton_command() -> str:
    """What to type for `vitriton` in the folder and the shell that this was called from.

    The bare name where the shell finds this very program by it, or else the path that was typed.
    """
    program = Path(sys.argv[0])
    if program.name != _NAME:
        # `python -m`, as `serve` calls an export: the script is beside the interpreter.
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
    """The commands that export a checkpoint and then serve it, as they have to be typed.

    Args:
        source: The checkpoint.
        model_id: Id it is served under by itself; none has the user choose one.
        options: Of `vitriton export`, beside `--name` and `--output`.
        repository: Where the model goes.
    """
    name = [] if model_id is not None else ["--name", _ID_TO_CHOOSE]
    folder = str(repository)
    export = shlex.join(["export", source, *options, *name, "--output", folder])
    serve = shlex.join(["serve", model_id or _ID_TO_CHOOSE, "--repository", folder])
    vitriton = vitriton_command()
    return f"`{vitriton} {export}`, then `{vitriton} {serve}`"
