"""Long steps of an export show their progress on a terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

from tests.stack import VITRITON

ROWS, COLUMNS = 40, 120
TIMEOUT_S = 120


def on_a_terminal(argv: list[str], folder: Path) -> str:
    """The output of a command that runs on a terminal."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    written = b""
    with subprocess.Popen(argv, cwd=folder, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        while True:
            try:
                written += os.read(ours, 65536)
            except OSError:
                # Linux raises this when no process has the terminal open any more.
                break
        assert process.wait(TIMEOUT_S) == 0, written.decode()
    os.close(ours)
    return written.decode()


def test_each_step_of_an_export_shows_its_progress(vit: Path, tmp_path: Path) -> None:
    """The steps are the reference, the trace, the verification and half precision."""
    written = on_a_terminal(
        [*VITRITON, "export", str(vit), "--max-batch-size", "1", "--precision", "fp16"], tmp_path
    )

    last = dict(re.findall(r"([a-z0-9 ]+): +(\d+)%\|", written))
    assert last == dict.fromkeys(("reference in float32", "verify", "low precision"), "100")
    traced = re.findall(r"trace: (\d+) modules", written)
    assert int(traced[-1]) > 10
