"""Run a hub with one model on the loopback interface, for the real huggingface_hub."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
MODEL = "someone/some-vit"


class Hub(ThreadingHTTPServer):
    """Serves one repository from a folder; `fault` may answer a request instead."""

    def __init__(self, folder: Path, fault: Callable[["Handler"], bool], model_id: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.fault = fault
        self.model_id = model_id


class Handler(BaseHTTPRequestHandler):
    """Answers the three routes that a download uses."""

    server: Hub

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        if self.server.fault(self):
            return
        files = sorted(self.server.folder.iterdir())
        if self.path.startswith(f"/api/models/{self.server.model_id}/tree/"):
            tree = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": COMMIT}
                for p in files
            ]
            self.send(json.dumps(tree).encode())
        elif self.path.startswith(f"/api/models/{self.server.model_id}"):
            siblings = [{"rfilename": p.name} for p in files]
            self.send(
                json.dumps(
                    {"id": self.server.model_id, "sha": COMMIT, "siblings": siblings}
                ).encode()
            )
        elif self.path.startswith(f"/{self.server.model_id}/resolve/"):
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
def hub(
    folder: Path, fault: Callable[[Handler], bool] = lambda _: False, model_id: str = MODEL
) -> Iterator[str]:
    """Run a hub; the block gets its address."""
    with Hub(folder, fault, model_id) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def hub_environment(endpoint: str, folder: Path) -> dict[str, str]:
    """Variables with which huggingface_hub asks this hub and uses a cache in the folder."""
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf")}
