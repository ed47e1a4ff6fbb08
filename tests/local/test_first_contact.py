"""Obstacles that new users meet: each is one line with the path and the way out."""

import os
import re
import shlex
import shutil
import socket
import sys
from pathlib import Path

import pytest

from deploy.local.errors import LocalError
from deploy.local.invocation import vitriton_command
from deploy.local.port import open_port
from deploy.local.work_folder import temporary_folder
from exporter.errors import ExportError
from exporter.folder import refuse_file
from tests.exporter.entries import files_below
from tests.stack import ROOT, run_command, run_python, run_vitriton, run_vitriton_as_others

DEMO = "vitriton/vit-digits"


def only_error(stderr: str) -> str:
    """The only error, in the last line; the lines before it report progress."""
    assert "Traceback" not in stderr
    *doing, error = stderr.splitlines()
    assert error.startswith("vitriton: error: ")
    assert not [line for line in doing if "error" in line]
    return error


def test_folder_that_cannot_be_written_is_one_line(locked: Path) -> None:
    """The error comes before any training; the repository would be the first file there."""
    done = run_vitriton_as_others(["serve", "--port", "0"], locked)

    error = only_error(done.stderr)
    assert done.returncode == 1
    assert f"model_repository: {locked}: Permission denied" in error
    assert "serve --repository DIR" in error
    assert done.stderr.splitlines() == [error]


def test_demo_folder_that_cannot_be_written_is_one_line(locked: Path, tmp_path: Path) -> None:
    """The repository can be written and the demo's folder cannot: nothing is trained."""
    repository = tmp_path / "models"
    done = run_vitriton_as_others(["serve", "--port", "0", "--repository", str(repository)], locked)

    error = only_error(done.stderr)
    assert done.returncode == 1
    assert f"the demo cannot be kept in demo: {locked}: Permission denied" in error
    assert "run this in another folder" in error
    assert not repository.exists()


@pytest.mark.parametrize("command", ["serve", "export"])
def test_staging_folder_that_cannot_be_made_is_named(
    locked: Path, tmp_path: Path, command: str
) -> None:
    """The repository can be written, and the folder that it is in cannot."""
    repository = locked / "models"
    locked.chmod(0o755)
    repository.mkdir()
    locked.chmod(0o555)
    option = {"serve": "--repository", "export": "--output"}[command]

    done = run_vitriton_as_others([command, DEMO, option, str(repository)], tmp_path)

    assert done.returncode == 1
    assert f"cannot write to {repository}: {locked}: Permission denied" in only_error(done.stderr)


def test_repository_below_a_file_is_one_line(tmp_path: Path) -> None:
    """Not even root can make such a folder."""
    (tmp_path / "file").write_text("")

    done = run_vitriton(["serve", DEMO, "--repository", "file/models", "--port", "0"], tmp_path)

    assert done.returncode == 1
    assert f"{tmp_path / 'file'}: Not a directory" in only_error(done.stderr)


def test_full_disk_during_the_training_is_one_line(tmp_path: Path) -> None:
    """A limit on file sizes acts as a full disk: the weights are above it, pictures below."""
    program = (
        "import resource; from deploy import cli; from deploy.local import demo\n"
        "demo._EPOCHS, demo.MIN_ACCURACY = 1, 0.0\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"cli.main(['export', {DEMO!r}])"
    )

    done = run_python(["-c", program], tmp_path, PYTHONPATH=str(ROOT))

    assert done.returncode == 1
    assert "the demo cannot be kept in demo: " in only_error(done.stderr)
    assert not (tmp_path / "demo" / "checkpoint").exists()


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_no_temporary_folder_is_one_line(command: str, tmp_path: Path) -> None:
    """A limit on file sizes makes all folders look full."""
    program = (
        "import resource; from deploy import cli\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        f"cli.main([{command!r}, '--port', '0'])"
    )

    done = run_python(["-c", program], tmp_path, PYTHONPATH=str(ROOT), TMPDIR=str(tmp_path))

    said = done.stdout + done.stderr
    (line,) = [line for line in said.splitlines() if "temporary folder" in line]
    assert done.returncode == 1
    assert "Traceback" not in said
    assert f"no temporary folder can be written, {tmp_path} neither" in line
    assert "set TMPDIR" in line


def test_temporary_folder_mounted_noexec_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this check, Triton would only say that a process exited unexpectedly."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mounted = os.statvfs(tmp_path)
    noexec = os.statvfs_result((*mounted[:8], mounted.f_flag | os.ST_NOEXEC, mounted.f_namemax))
    monkeypatch.setattr("os.statvfs", lambda _: noexec)

    with pytest.raises(LocalError, match=rf"{tmp_path} is mounted noexec.*set TMPDIR"):
        temporary_folder()


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("192.0.2.1", "GATEWAY_HOST"),
        ("nowhere.invalid", "GATEWAY_HOST"),
        ("a" * 64, "GATEWAY_HOST"),
    ],
)
def test_host_of_another_machine_is_one_line(host: str, says: str) -> None:
    """The error does not advise another port, which would not help."""
    with pytest.raises(LocalError, match=says) as caught:
        open_port(host, 0)

    assert host in str(caught.value)
    assert "--port" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_port_that_needs_root_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test imitates the refusal: which ports need root is a setting of the machine."""

    class Refusing(socket.socket):
        def bind(self, _: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket", Refusing)

    with pytest.raises(LocalError, match=r"port 80 .*: Permission denied; .* root; .*--port"):
        open_port("127.0.0.1", 80)


@pytest.mark.parametrize("command", ["serve", "export", "doctor"])
def test_file_as_model_is_refused(command: str, tmp_path: Path) -> None:
    """Each command that takes a MODEL refuses it."""
    (tmp_path / "model.onnx").write_bytes(b"x")
    options = ["--port", "0"] if command != "export" else []

    done = run_vitriton([command, "model.onnx", *options], tmp_path)

    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "model.onnx is a file, and " in said
    assert "name the folder that `save_pretrained` wrote" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("file", ["model.safetensors", "model.pt", "config.json", "notes"])
def test_file_of_a_checkpoint_names_its_folder(file: str, tmp_path: Path) -> None:
    """A config.json beside the file makes the folder a checkpoint."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / file).write_bytes(b"x")

    with pytest.raises(ExportError, match=rf"{file} is a file.*that it is in: {tmp_path}$"):
        refuse_file(str(tmp_path / file))


@pytest.mark.parametrize("name", ["My Model (v2)", "modèle"])
def test_folder_whose_name_is_no_id_is_refused_with_commands_that_work(
    checkpoints: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """Run unchanged, the first command exports the folder and the second finds the model."""
    shutil.copytree(checkpoints["test/vit"], tmp_path / name)
    arguments = [f"./{name}", "--repository", "my models", "--port", "0"]

    done = run_vitriton(["serve", *arguments], tmp_path)

    error = only_error(done.stderr)
    found = re.search(r"`(.* export .*)`, then `(.*)`$", error)
    assert done.returncode == 1
    assert found
    assert "vitriton export" in error
    export, serve = shlex.split(found[1]), shlex.split(found[2])
    assert run_command([*export, "--max-batch-size", "1"], tmp_path).returncode == 0
    assert "ORG--NAME/1/model.pt" in files_below(tmp_path / "my models")
    # `doctor` does what `serve` does first, and does not serve.
    looked = ["doctor" if word == "serve" else word for word in serve]
    answer = run_command([*looked, "--port", "0"], tmp_path)
    assert answer.returncode == 0, answer.stdout
    assert "serving ORG/NAME: my models holds it" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "names_export"),
    [
        (["--name", "me/mine", "./folder"], True),
        (["--revision=main", "someone/some-vit"], True),
        (["--nonsense"], False),
    ],
)
def test_option_of_export_given_to_serve_names_export(
    arguments: list[str], names_export: bool, tmp_path: Path
) -> None:
    """It is wrong usage: exit code 2."""
    done = run_vitriton(["serve", *arguments], tmp_path)

    error = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert "unrecognized arguments" in error
    assert ("export the model with `vitriton export` first" in error) == names_export


def test_command_for_the_next_step_is_the_one_that_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the bare name only if the shell finds this program by that name."""
    script = tmp_path / "my venv" / "vitriton"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    other = tmp_path / "vitriton"
    shutil.copy(script, other)
    monkeypatch.chdir(tmp_path)

    def suggested(program: str, path: Path) -> str:
        monkeypatch.setattr(sys, "argv", [program])
        monkeypatch.setenv("PATH", str(path))
        return vitriton_command()

    assert suggested("my venv/vitriton", tmp_path / "nowhere") == "'my venv/vitriton'"
    assert suggested("my venv/vitriton", tmp_path) == "'my venv/vitriton'"
    assert suggested(str(script), script.parent) == "vitriton"
    assert Path(shlex.split(suggested("cli.py", tmp_path / "nowhere"))[0]).is_absolute()


def test_last_line_of_an_export_serves_the_model(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """The command works in the same folder, whatever `PATH` is."""
    arguments = ["--name", "me/vit", "--output", "my models", "--max-batch-size", "1"]
    done = run_vitriton(["export", str(checkpoints["test/vit"]), *arguments], tmp_path)

    command = shlex.split(done.stdout)
    assert command[-4:] == ["serve", "me/vit", "--repository", "my models"]
    looked = ["doctor" if word == "serve" else word for word in command]
    answer = run_command([*looked, "--port", "0"], tmp_path, PATH="/usr/bin:/bin")
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("port", ["65536", "http", "-1"])
def test_number_that_is_no_port_is_named_with_its_bounds(port: str, tmp_path: Path) -> None:
    """`serve` refuses it before anything starts; exit code 2."""
    done = run_vitriton(["serve", f"--port={port}"], tmp_path)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"{port} is no port: 0 to 65535")
