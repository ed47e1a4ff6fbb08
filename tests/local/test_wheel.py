"""The built wheel, installed without the checkout, has everything that serving needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.stack import ROOT, STOP_TIMEOUT_S, run_command, run_python, running_stack

DEMO = "vitriton/vit-digits"
PACKAGES = ("gateway", "exporter", "deploy")
BUILD_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into; its dependencies are those of this environment.

    The wheel is built from a copy: a build folder in the checkout could add what the sources lack.
    """
    source, wheels, site = (tmp_path_factory.mktemp(name) for name in ("source", "wheel", "site"))
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    pip(["wheel", *options, "--no-build-isolation", "--wheel-dir", str(wheels), str(source)])
    (wheel,) = wheels.glob("vitriton-*.whl")
    pip(["install", *options, "--no-compile", "--target", str(site), str(wheel)])
    return site


def pip(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True, timeout=BUILD_TIMEOUT_S)


def test_installed_packages_are_those_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    """The checkout is installed in this environment too; the wheel's folder comes before it."""
    program = f"import {', '.join(PACKAGES)}\n" + "\n".join(
        f"print({name}.__file__)" for name in PACKAGES
    )
    done = run_python(["-c", program], tmp_path, PYTHONPATH=str(installed))

    assert done.stdout.split() == [str(installed / name / "__init__.py") for name in PACKAGES]


@pytest.mark.parametrize("name", PACKAGES)
def test_wheel_has_every_file_of_a_package(installed: Path, name: str) -> None:
    """Modules, `py.typed`, our Triton backend, and the files of Swagger UI."""
    sources = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if is_served(path)}

    assert {path for path in sources if not (installed / path).is_file()} == set()
    assert Path(name, "py.typed") in sources


def is_served(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and path.name != "README.md"


def test_command_of_the_wheel_tells_its_version(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(installed / "bin" / "vitriton"), "--version"]
    done = run_command(command, tmp_path, PYTHONPATH=str(installed))

    assert re.fullmatch(r"vitriton \d+\.\d+\.\d+\S*\n", done.stdout), done.stderr


def test_wheel_serves(installed: Path, demo_repository: Path, tmp_path: Path) -> None:
    """From a folder that is empty, `vitriton serve` classifies and shows Swagger UI."""
    digit = (ROOT / "demo" / "digits" / "7.png").read_bytes()
    with (
        running_stack([DEMO], demo_repository, tmp_path, PYTHONPATH=str(installed)) as stack,
        httpx.Client(base_url=stack.url, timeout=STOP_TIMEOUT_S) as client,
    ):
        best = client.post(f"/models/{DEMO}", content=digit).json()[0]
        page = client.get("/docs")
        styles = client.get("/docs/swagger-ui.css")

    assert best["label"] == "7"
    assert "swagger-ui" in page.text
    assert (styles.status_code, styles.headers["content-type"]) == (200, "text/css; charset=utf-8")
