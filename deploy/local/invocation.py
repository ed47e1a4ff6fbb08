"""How this program was called, for lines that tell the user what to run next."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

_NAME: Final = "vitriton"


def vitriton_command() -> str:
    """What to type for `vitriton` in the folder and the shell that this was called from.

    The bare name where the shell finds this very program by it, or else the path that was typed.
    """
    program = Path(sys.argv[0])
    if program.name != _NAME:
        # `python -m`, as `serve` calls an export: the script is beside the interpreter.
        program = Path(sys.executable).with_name(_NAME)
        if not program.is_file():
            return shlex.join([sys.executable, "-m", "deploy.local.cli"])
    found = shutil.which(_NAME)
    if found is not None and program.exists() and Path(found).samefile(program):
        return _NAME
    return shlex.quote(str(program))
