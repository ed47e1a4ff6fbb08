"""`vitriton doctor` reports what is wrong, with the way out."""

import shutil
import socket
from pathlib import Path

import pytest

from tests.stack import run_vitriton_as_others


def doctor(
    repository: Path, folder: Path, *models: str, **environment: str
) -> tuple[int, list[str]]:
    done = run_vitriton_as_others(
        ["doctor", *models, "--repository", str(repository)], folder, **environment
    )
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def free_port() -> str:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def wrong(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("WRONG")]


def test_machine_without_problems_has_no_wrong_line(
    demo_repository: Path, tmp_path: Path, free_port: str
) -> None:
    """Every part and every model has a line; exit code 0."""
    code, lines = doctor(demo_repository, tmp_path, GATEWAY_PORT=free_port)

    assert wrong(lines) == []
    assert code == 0
    text = "\n".join(lines)
    subjects = ["embedded Triton", "shared memory", "temporary folder", "port", "device"]
    for subject in [*subjects, "model repository", "serving vitriton/vit-digits"]:
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


def test_taken_port_and_bad_setting_are_found(tmp_path: Path) -> None:
    """The report has all of them, not only the first."""
    (tmp_path / "models").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        _, lines = doctor(tmp_path / "models", tmp_path, "me/model", GATEWAY_PORT=port)
    _, bad = doctor(tmp_path / "models", tmp_path, GATEWAY_MAX_INFLIGHT="x")

    assert [line.split(":")[0] for line in wrong(lines)] == [
        "WRONG port",
        "WRONG model repository",
        "WRONG serving me/model",
    ]
    assert any("GATEWAY_MAX_INFLIGHT='x'" in line for line in wrong(bad))


def test_missing_repository_is_not_wrong(tmp_path: Path, free_port: str) -> None:
    """`doctor` does not make it; the line says what `serve` would do."""
    code, lines = doctor(tmp_path / "new" / "models", tmp_path, GATEWAY_PORT=free_port)

    text = "\n".join(lines)
    assert (code, wrong(lines)) == (0, [])
    assert "ok    model repository: " in text
    assert "is not there, and can be made" in text
    assert "ok    serving vitriton/vit-digits: `serve` exports it first" in text
    assert list(tmp_path.iterdir()) == []


def test_folder_where_nothing_can_be_written_is_wrong(locked: Path, free_port: str) -> None:
    """`serve` would fail there; the lines name the path."""
    code, lines = doctor(Path("model_repository"), locked, GATEWAY_PORT=free_port)

    assert code == 1
    assert [line.split(":")[0] for line in wrong(lines)] == [
        "WRONG model repository",
        "WRONG serving vitriton/vit-digits",
    ]
    assert all(f"{locked}: Permission denied" in line for line in wrong(lines))


def test_demo_folder_that_cannot_be_written_is_wrong(
    locked: Path, tmp_path: Path, free_port: str
) -> None:
    """It is wrong only if the demo is among the models to serve."""
    _, demo = doctor(tmp_path / "models", locked, GATEWAY_PORT=free_port)
    _, other = doctor(tmp_path / "models", locked, "me/model", GATEWAY_PORT=free_port)

    assert len(wrong(demo)) == 1
    assert f"the demo cannot be kept in demo: {locked}: Permission denied" in wrong(demo)[0]
    assert wrong(other) == []


def test_read_only_repository_can_be_served(
    demo_repository: Path, locked: Path, free_port: str
) -> None:
    """The line says that it takes no other model; serving another one is wrong."""
    locked.chmod(0o755)
    repository = Path(shutil.copytree(demo_repository, locked / "models"))
    repository.chmod(0o555)
    locked.chmod(0o555)

    code, lines = doctor(repository, locked, GATEWAY_PORT=free_port)
    _, other = doctor(repository, locked, "me/model", GATEWAY_PORT=free_port)

    repository.chmod(0o755)
    assert (code, wrong(lines)) == (0, [])
    assert "holds 1 model and takes no others: cannot write to" in "\n".join(lines)
    assert [line.split(":")[0] for line in wrong(other)] == ["WRONG serving me/model"]


def test_port_and_ids_are_those_that_serve_would_take(tmp_path: Path) -> None:
    """`--port` overrides the environment; the name of a folder must be a model id."""
    (tmp_path / "no id").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, lines = doctor(
            tmp_path / "models", tmp_path, "./no id", f"--port={port}", GATEWAY_PORT="0"
        )

    assert any(line.startswith(f"WRONG port: port {port} ") for line in lines)
    assert any(line.startswith("WRONG ids: ./no id cannot be served") for line in lines)
