"""Choose by which of its configurations Triton serves a model on this machine.

`auto` finds out without importing torch, which takes seconds.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from deploy.local.errors import LocalError
from exporter.repository import CONFIGS_FOLDER

AUTO: Final = "auto"
CPU: Final = "cpu"
GPU: Final = "gpu"
GPU_JPEG: Final = "gpu-jpeg"

HIDE_GPUS: Final = "CUDA_VISIBLE_DEVICES"
"""CUDA's variable; an empty value hides all GPUs."""

_IMPORT_TIMEOUT_S: Final = 30.0
_INSTALL_CODEC: Final = "pip install 'vitriton[gpu]', with CUDA 12 'vitriton[gpu-cuda12]'"


class Profile(NamedTuple):
    """The name of a file in each model's `configs/`, and why it was chosen."""

    name: str
    reason: str
    is_automatic: bool = False

    @property
    def decodes_jpegs(self) -> bool:
        """Whether Triton decodes JPEGs, so that the gateway decodes few pictures."""
        return self.name == GPU_JPEG


def profile_for_entries(profile: Profile, entries: Iterable[Path]) -> Profile:
    """The profile for the models that are there: `gpu` if one lacks what was chosen for it.

    Triton would serve such a model by its `config.pbtxt`, which is slower on a GPU.

    Args:
        profile: What the machine can serve; one that was asked for is kept.
        entries: The models' folders in the repository.
    """
    lacking = [entry.name for entry in entries if not configuration_of(entry, profile).is_file()]
    if not profile.is_automatic or not profile.decodes_jpegs or not lacking:
        return profile
    return Profile(
        GPU,
        f"on the GPU; the gateway decodes every picture, as {', '.join(lacking)} has no"
        f" {GPU_JPEG}.pbtxt: export it again",
        is_automatic=True,
    )


def configuration_of(entry: Path, profile: Profile) -> Path:
    """The file that Triton reads for a model of the repository, if it is there."""
    return entry / CONFIGS_FOLDER / f"{profile.name}.pbtxt"


def choose_profile(wanted: str) -> Profile:
    """The profile of that name, or with `auto` the best that this machine can serve.

    Raises:
        LocalError: This machine lacks what the profile needs.
    """
    if wanted == AUTO:
        return _best_profile()
    if wanted in {GPU, GPU_JPEG} and not has_nvidia_gpu():
        raise LocalError(f"--profile {wanted} needs an NVIDIA GPU, and there is none; use `cpu`")
    if wanted in {GPU, GPU_JPEG} and cuda_of_torch() is None:
        raise LocalError(
            f"--profile {wanted} needs a torch with CUDA, and this one is built without; use `cpu`"
        )
    if wanted == GPU_JPEG and not has_image_codec():
        raise LocalError(
            f"--profile {wanted} needs nvImageCodec: {_INSTALL_CODEC}; or use `gpu`, with which the"
            " gateway decodes every picture"
        )
    return Profile(wanted, "as asked for")


def _best_profile() -> Profile:
    if not has_nvidia_gpu():
        return Profile(CPU, "there is no NVIDIA GPU", is_automatic=True)
    if cuda_of_torch() is None:
        return Profile(
            CPU, "torch is built without CUDA, so the GPU is not used", is_automatic=True
        )
    if not has_image_codec():
        return Profile(
            GPU,
            "on the GPU; the gateway decodes every picture, as nvImageCodec is not installed"
            f" ({_INSTALL_CODEC})",
            is_automatic=True,
        )
    return Profile(GPU_JPEG, "on the GPU, and Triton decodes JPEGs there", is_automatic=True)


def has_nvidia_gpu() -> bool:
    """Whether the driver shows a GPU to this process, and CUDA may use it."""
    if os.environ.get(HIDE_GPUS) in {"", "-1"}:
        return False
    return Path("/dev/nvidiactl").exists() and any(Path("/dev").glob("nvidia[0-9]*"))


def cuda_of_torch() -> str | None:
    """CUDA's version that torch is built for; none without CUDA."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return None
    # A module of a few constants, which imports nothing of torch.
    file = Path(torch.origin).with_name("version.py")
    spec = importlib.util.spec_from_file_location("torch_version", file)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    version: str | None = getattr(module, "cuda", None)
    return version


def has_image_codec() -> bool:
    """Whether a model's process in Triton can import nvImageCodec, for any version of CUDA.

    Such a process ignores `PYTHONPATH`, so another interpreter has to try.
    """
    argv = [sys.executable, "-E", "-c", "import nvidia.nvimgcodec"]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and a program of ours
            argv, capture_output=True, timeout=_IMPORT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
