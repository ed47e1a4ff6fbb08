"""The tritonserver inside the wheel `nvidia-pytriton`, and a backend directory made for it.

The wheel's Python code is never imported: only its server, its python backend and its stubs are
used. It needs Linux on x86-64 with glibc 2.35 or later.
"""

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.errors import LocalError

# Triton imports `model.py` of a backend's folder by itself, so it cannot be in our package.
_BACKEND_PACKAGE: Final = "vitriton_backend"
_BACKEND_ENTRY: Final = f"from {_BACKEND_PACKAGE}.model import TritonPythonModel\n"
_MIN_GLIBC: Final = (2, 35)
_ELSEWHERE: Final = (
    "on other machines serve the same model repository with NVIDIA's Triton image and run"
    " `vitriton gateway`"
)


@dataclass(frozen=True, slots=True)
class EmbeddedTriton:
    """Paths of the wheel's parts."""

    tritonserver: Path
    python_backend: Path
    """Folder with `libtriton_python.so` and `triton_python_backend_utils.py`."""
    stub: Path
    """`triton_python_backend_stub` for this interpreter's minor version."""
    libraries: tuple[Path, ...]
    """Folders for `LD_LIBRARY_PATH`."""


def find_embedded_triton(search_path: Sequence[str] | None = None) -> EmbeddedTriton:
    """Find the wheel on `search_path`, by default `sys.path`.

    Raises:
        LocalError: This machine or interpreter cannot run it, or the wheel is not installed.
    """
    _check_machine()
    folder = _package_folder("pytriton", sys.path if search_path is None else search_path)
    server = folder / "tritonserver"
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / minor / "triton_python_backend_stub"
    if not stub.is_file():
        known = sorted(path.name for path in (server / "python_backend_stubs").glob("3.*"))
        raise LocalError(
            f"the embedded Triton has no stub for Python {minor}, only for {', '.join(known)};"
            " make the environment with one of these"
        )
    return EmbeddedTriton(
        tritonserver=server / "bin" / "tritonserver",
        python_backend=server / "backends" / "python",
        stub=stub,
        libraries=(_libpython_folder(), folder.parent / "nvidia_pytriton.libs"),
    )


def assemble_backend_directory(triton: EmbeddedTriton, folder: Path) -> None:
    """Fill `folder` for `--backend-directory` with the wheel's python backend and our own.

    Ours has the name `pytorch`, as NVIDIA's libtorch backend has.
    """
    ours = Path(__file__).parent.parent / "triton_backend"
    _copy(triton.python_backend.glob("[!_]*"), folder / "python")
    _copy([triton.stub], folder / "python")
    _copy(ours.glob("*.py"), folder / "pytorch" / _BACKEND_PACKAGE)
    (folder / "pytorch" / "model.py").write_text(_BACKEND_ENTRY)


def _copy(files: Iterable[Path], folder: Path) -> None:
    # Copies, not links: Triton refuses a backend whose real path is outside the backend directory.
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder)


def _check_machine() -> None:
    libc, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if sys.platform != "linux" or platform.machine() != "x86_64" or libc != "glibc":
        raise LocalError(
            f"the embedded Triton runs on Linux x86-64 with glibc, not on {platform.system()}"
            f" {platform.machine()}{f' with {libc}' if libc else ''}; {_ELSEWHERE}"
        )
    if numbers < _MIN_GLIBC:
        raise LocalError(
            f"the embedded Triton needs glibc {_MIN_GLIBC[0]}.{_MIN_GLIBC[1]} or later, this"
            f" machine has {version}; {_ELSEWHERE}"
        )


def _package_folder(name: str, search_path: Sequence[str]) -> Path:
    for entry in search_path:
        # Importing the package to find it would import everything it depends on.
        if (Path(entry) / name / "tritonserver").is_dir():
            return Path(entry) / name
    raise LocalError(
        "the embedded Triton is not installed: the wheel nvidia-pytriton is missing; run"
        " `make install`, or `pip install 'vitriton[local]'`"
    )


def _libpython_folder() -> Path:
    """Folder of the shared library `libpython`, which the stub is linked to."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    lib = sysconfig.get_config_var("LIBDIR") or ""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders = [Path(lib), Path(lib) / multiarch, Path(sys.base_prefix) / "lib"]
    for folder in folders:
        if (folder / name).is_file():
            return folder
    raise LocalError(
        f"{name} is not in {os.pathsep.join(map(str, folders))}; the embedded Triton needs a Python"
        " with its shared library (on Debian and Ubuntu: apt-get install"
        f" libpython{sys.version_info.major}.{sys.version_info.minor})"
    )
