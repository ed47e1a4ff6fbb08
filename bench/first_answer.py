"""Measure the seconds from `git clone` to the first right answer, and for a second start.

Clones the commit that is checked out into an empty folder, runs `make serve`, sends a held-out
digit, checks the label and stops; then runs `make serve` again in the same folder.
Needs git, make, Python and a package index; prints seconds, exits 1 when a limit is passed.
"""

import json
import queue
import re
import signal
import subprocess
import tempfile
import threading
import urllib.request
from pathlib import Path
from time import monotonic
from typing import IO, Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
MODEL: Final = "vitriton/vit-digits"
DIGIT: Final = "7"
FIRST_LIMIT_S: Final = 300.0
SECOND_LIMIT_S: Final = 20.0
_GIVE_UP_S: Final = 1200.0
_READY: Final = re.compile(r"ready at (http://\S+)")


def main() -> None:
    """Run both measurements."""
    with tempfile.TemporaryDirectory(prefix="vitriton-first-answer-") as folder:
        clone = Path(folder) / "vitriton"
        start = monotonic()
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        first = seconds_to_answer(clone, start)
        second = seconds_to_answer(clone, monotonic())
    report = {"first_answer_s": round(first, 1), "second_serve_s": round(second, 1)}
    print(json.dumps(report))
    if first > FIRST_LIMIT_S or second > SECOND_LIMIT_S:
        raise SystemExit(f"too slow: the limits are {FIRST_LIMIT_S:g} s and {SECOND_LIMIT_S:g} s")


def seconds_to_answer(clone: Path, start: float) -> float:
    """Seconds from `start` to a right answer from `make serve` in `clone`."""
    with subprocess.Popen(
        ["make", "serve", "PORT=0"], cwd=clone, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None  # noqa: S101 - asked for above
        try:
            url = wait_for_url(server.stdout)
            no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            picture = (clone / "demo" / "digits" / f"{DIGIT}.png").read_bytes()
            request = urllib.request.Request(f"{url}/models/{MODEL}", data=picture)  # noqa: S310
            with no_proxy.open(request, timeout=30) as response:
                best = json.load(response)[0]
            seconds = monotonic() - start
            if best["label"] != DIGIT:
                raise SystemExit(f"a wrong answer: {best} for a {DIGIT}")
            return seconds
        finally:
            server.send_signal(signal.SIGTERM)


def wait_for_url(output: IO[str]) -> str:
    """The URL in the line that says the server is ready; all lines are printed."""
    found: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in output:
            print(line, end="", flush=True)
            if match := _READY.search(line):
                found.put(match[1])
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    url = found.get(timeout=_GIVE_UP_S)
    if url is None:
        raise SystemExit("`make serve` ended before it was ready")
    return url


if __name__ == "__main__":
    main()
