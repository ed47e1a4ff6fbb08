"""The OpenAPI description is true, as schemathesis finds, and `/docs` shows it."""

import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.stack import RUN_TIMEOUT_S, Stack

CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_service_does_what_its_description_says(stack: Stack, tmp_path: Path) -> None:
    """Answers to generated requests have the statuses, headers and bodies of the description."""
    argv = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)]
    run = ["run", f"{stack.url}/openapi.json"]
    done = subprocess.run(
        [*argv, *run, "--max-examples", "25", "--generation-database", "none"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    tested = re.search(r"(\d+) generated, \1 passed", done.stdout)
    assert tested, done.stdout
    assert int(tested[1]) > 100


def test_docs_page_loads_only_files_of_this_server(client: httpx.Client) -> None:
    """The page `/docs` loads only files of this server and runs no inline script."""
    page = client.get("/docs")
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)

    assert page.headers["content-type"].startswith("text/html")
    assert "http" not in page.text
    assert len(assets) == 3
    assert re.findall(r"<script[^>]*>(.*?)</script>", page.text) == ["", ""]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert {client.get(asset).status_code for asset in assets} == {200}
    assert client.get("/docs/../server.py").status_code == 404
    assert client.get("/docs/index.html").status_code == 404
