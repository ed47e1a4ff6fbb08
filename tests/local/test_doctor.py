"""`vitriton doctor`: what is well, what is wrong, and the way out."""

import shutil
import socket
from pathlib import Path

import pytest

from tests.stack import run_vitriton


def doctor(repository: Path, folder: Path, **environment: str) -> tuple[int, list[str]]:
    done = run_vitriton(["doctor", "--repository", str(repository)], folder, **environment)
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def free_port() -> str:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def wrong(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("WRONG")]


def test_all_is_well(demo_repository: Path, tmp_path: Path, free_port: str) -> None:
    """Every part has a line, each model its facts; exit code 0."""
    code, lines = doctor(demo_repository, tmp_path, GATEWAY_PORT=free_port)

    assert wrong(lines) == []
    assert code == 0
    text = "\n".join(lines)
    for subject in ("embedded Triton", "shared memory", "port", "device", "model repository"):
        assert f"ok    {subject}: " in text
    assert "vitriton/vit-digits, fp32, 10 labels, batches of up to 32" in text


def test_damaged_graph_is_found_by_its_hash(
    demo_repository: Path, tmp_path: Path, free_port: str
) -> None:
    """One line names the file and the way out; exit code 1."""
    entry = tmp_path / "models" / "vitriton--vit-digits"
    shutil.copytree(demo_repository / "vitriton--vit-digits", entry)
    (entry / "1" / "model.pt").write_bytes(b"damaged")

    code, lines = doctor(tmp_path / "models", tmp_path, GATEWAY_PORT=free_port)

    assert code == 1
    assert len(wrong(lines)) == 1
    assert "sha256 differs" in wrong(lines)[0]
    assert "export the model again" in wrong(lines)[0]


def test_taken_port_missing_repository_and_bad_setting_are_found(tmp_path: Path) -> None:
    """All of them at once, not only the first."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        _, lines = doctor(tmp_path / "none", tmp_path, GATEWAY_PORT=port)
    _, bad = doctor(tmp_path / "none", tmp_path, GATEWAY_MAX_INFLIGHT="x")

    assert [line.split(":")[0] for line in wrong(lines)] == [
        "WRONG port",
        "WRONG model repository",
    ]
    assert any("GATEWAY_MAX_INFLIGHT='x'" in line for line in wrong(bad))
