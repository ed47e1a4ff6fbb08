"""A hub that fails in every way it can: one clear line each, nothing half-written.

The hub is a script on the loopback interface; huggingface_hub is real.
"""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.stack import run_vitriton

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
MODEL = "someone/some-vit"


class Hub(ThreadingHTTPServer):
    """Serves one repository from a folder; `fault` may answer a request instead."""

    def __init__(self, folder: Path, fault: Callable[["Handler"], bool]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.fault = fault


class Handler(BaseHTTPRequestHandler):
    """The three routes a download takes."""

    server: Hub

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        if self.server.fault(self):
            return
        files = sorted(self.server.folder.iterdir())
        if self.path.startswith(f"/api/models/{MODEL}/tree/"):
            tree = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": COMMIT}
                for p in files
            ]
            self.send(json.dumps(tree).encode())
        elif self.path.startswith(f"/api/models/{MODEL}"):
            siblings = [{"rfilename": p.name} for p in files]
            self.send(json.dumps({"id": MODEL, "sha": COMMIT, "siblings": siblings}).encode())
        elif self.path.startswith(f"/{MODEL}/resolve/"):
            self.send((self.server.folder / Path(self.path).name).read_bytes())
        else:
            self.fail(404, "RepoNotFound")

    def send(self, body: bytes, sent_bytes: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent_bytes])

    def fail(self, status: int, error_code: str = "") -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", error_code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def hub(folder: Path, fault: Callable[[Handler], bool]) -> Iterator[str]:
    """Address of a running hub."""
    with Hub(folder, fault) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def hub_environment(endpoint: str, folder: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf")}


def export_from(endpoint: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_vitriton(
        ["export", MODEL, "--max-batch-size", "1", *arguments],
        folder,
        **hub_environment(endpoint, folder),
    )


def test_model_is_downloaded_and_exported_with_its_commit(vit: Path, tmp_path: Path) -> None:
    """The contract has id and commit, so `--check` needs no checkpoint, whatever the name."""
    with hub(vit, lambda _: False) as endpoint:
        done = export_from(endpoint, tmp_path, "--name", "me/renamed")
        assert done.returncode == 0, done.stderr
        entry = tmp_path / "model_repository" / "me--renamed"
        checked = run_vitriton(
            ["export", "--check", str(entry)], tmp_path, **hub_environment(endpoint, tmp_path)
        )

    assert COMMIT in (entry / "config.pbtxt").read_text()
    assert checked.returncode == 0, checked.stderr
    assert "is what its checkpoint says" in checked.stderr


def gated(handler: Handler) -> bool:
    handler.fail(403, "GatedRepo")
    return True


def missing(handler: Handler) -> bool:
    handler.fail(404, "RepoNotFound")
    return True


def unauthorized(handler: Handler) -> bool:
    handler.fail(401, "RepoNotFound")
    return True


def unknown_revision(handler: Handler) -> bool:
    handler.fail(404, "RevisionNotFound")
    return True


def broken_off(handler: Handler) -> bool:
    """The weights stop half-way, each time."""
    if handler.command != "GET" or not handler.path.endswith(".safetensors"):
        return False
    body = (handler.server.folder / "model.safetensors").read_bytes()
    handler.send(body, len(body) // 2)
    handler.close_connection = True
    return True


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (gated, "is gated: ask for access on its page and set HF_TOKEN"),
        (missing, "does not exist on the hub"),
        (unauthorized, "private or gated: set HF_TOKEN"),
        (unknown_revision, "does not exist on the hub"),
        (broken_off, "could not be downloaded"),
    ],
)
def test_fault_of_the_hub_is_one_line(
    vit: Path, tmp_path: Path, fault: Callable[[Handler], bool], says: str
) -> None:
    """With what to do; exit code 1; no model repository appears."""
    with hub(vit, fault) as endpoint:
        done = export_from(endpoint, tmp_path)

    errors = [line for line in done.stderr.splitlines() if line.startswith("vitriton: error: ")]
    assert done.returncode == 1
    assert len(errors) == 1, done.stderr
    assert says in errors[0]
    assert MODEL in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model_repository").exists()


def test_download_that_broke_off_is_finished_the_next_time(vit: Path, tmp_path: Path) -> None:
    """What arrived is not taken for a whole file."""
    with hub(vit, broken_off) as endpoint:
        assert export_from(endpoint, tmp_path).returncode == 1
    with hub(vit, lambda _: False) as endpoint:
        done = export_from(endpoint, tmp_path)

    assert done.returncode == 0, done.stderr
