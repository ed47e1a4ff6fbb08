"""Which of a model's configurations Triton reads on a machine, and why."""

import sys
from pathlib import Path

import pytest
import torch

from deploy.local import profile
from deploy.local.errors import LocalError
from deploy.local.profile import choose_profile, profile_for_entries
from tests.stack import output_of_failed_serve, run_vitriton


def machine(monkeypatch: pytest.MonkeyPatch, *, gpu: bool, cuda: str | None, codec: bool) -> None:
    monkeypatch.setattr(profile, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(profile, "cuda_of_torch", lambda: cuda)
    monkeypatch.setattr(profile, "has_image_codec", lambda: codec)


@pytest.mark.parametrize(
    ("gpu", "cuda", "codec", "name", "reason"),
    [
        (True, "13.0", True, "gpu-jpeg", "Triton decodes JPEGs"),
        (True, "13.0", False, "gpu", "pip install 'vitriton[gpu]'"),
        (True, None, True, "cpu", "torch is built without CUDA"),
        (False, "13.0", True, "cpu", "no NVIDIA GPU"),
        (False, None, False, "cpu", "no NVIDIA GPU"),
    ],
)
def test_auto_takes_the_best_and_says_why(
    gpu: bool, cuda: str | None, codec: bool, name: str, reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Decoding on the GPU needs all three: the GPU, CUDA in torch, and nvImageCodec."""
    machine(monkeypatch, gpu=gpu, cuda=cuda, codec=codec)

    chosen = choose_profile("auto")

    assert chosen.name == name
    assert reason in chosen.reason


@pytest.mark.parametrize(
    ("wanted", "gpu", "cuda", "codec", "lacks"),
    [
        ("gpu", False, "13.0", True, "needs an NVIDIA GPU"),
        ("gpu-jpeg", False, "13.0", True, "needs an NVIDIA GPU"),
        ("gpu", True, None, True, "needs a torch with CUDA"),
        ("gpu-jpeg", True, "13.0", False, "needs nvImageCodec"),
    ],
)
def test_profile_that_the_machine_cannot_serve_is_refused(
    wanted: str, gpu: bool, cuda: str | None, codec: bool, lacks: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The message names what is missing, and another profile."""
    machine(monkeypatch, gpu=gpu, cuda=cuda, codec=codec)

    with pytest.raises(LocalError, match=f"--profile {wanted} {lacks}.*use `(cpu|gpu)`"):
        choose_profile(wanted)


@pytest.mark.parametrize("wanted", ["cpu", "gpu", "gpu-jpeg", "my-own"])
def test_profile_asked_for_is_taken(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a file that somebody has added to a model's `configs/`."""
    machine(monkeypatch, gpu=True, cuda="13.0", codec=True)

    assert choose_profile(wanted).name == wanted


def entry(folder: Path, *configurations: str) -> Path:
    """A model's folder with these configurations."""
    (folder / "configs").mkdir(parents=True)
    for name in configurations:
        (folder / "configs" / f"{name}.pbtxt").touch()
    return folder


def test_model_of_an_earlier_export_is_served_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `gpu-jpeg.pbtxt` it would be served by `config.pbtxt`, slower than by `gpu.pbtxt`."""
    machine(monkeypatch, gpu=True, cuda="13.0", codec=True)
    new = entry(tmp_path / "new", "cpu", "gpu", "gpu-jpeg")
    old = entry(tmp_path / "old", "cpu", "gpu")

    assert profile_for_entries(choose_profile("auto"), [new]).name == "gpu-jpeg"
    mixed = profile_for_entries(choose_profile("auto"), [new, old])
    assert mixed.name == "gpu"
    assert "old has no gpu-jpeg.pbtxt" in mixed.reason
    assert profile_for_entries(choose_profile("gpu-jpeg"), [old]).name == "gpu-jpeg"


@pytest.mark.parametrize("value", ["", "-1"])
def test_hidden_gpu_is_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA reads the variable."""
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "glob", lambda _, pattern: [Path(pattern)])
    assert profile.has_nvidia_gpu()

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)

    assert not profile.has_nvidia_gpu()


def test_cuda_of_torch_is_what_torch_says() -> None:
    """Read without importing torch, and the same."""
    assert profile.cuda_of_torch() == torch.version.cuda


def test_codec_has_to_be_where_models_import_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of a model ignores `PYTHONPATH`, so a copy there does not count."""
    assert profile.has_image_codec()
    package = tmp_path / "nvidia" / "nvimgcodec"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = tmp_path / "python-without-packages"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    assert not profile.has_image_codec()


without_gpu = pytest.mark.skipif(profile.has_nvidia_gpu(), reason="this machine has a GPU")


@without_gpu
def test_serve_refuses_before_it_exports(tmp_path: Path) -> None:
    """One line, and nothing was written."""
    models = tmp_path / "models"

    code, lines = output_of_failed_serve(
        ["--repository", str(models), "--profile", "gpu-jpeg"], tmp_path
    )

    assert code == 1
    assert [line for line in lines if "error" in line] == [
        "vitriton: error: --profile gpu-jpeg needs an NVIDIA GPU, and there is none; use `cpu`"
    ]
    assert not models.exists()


@without_gpu
def test_doctor_says_which_profile_serve_would_take(tmp_path: Path) -> None:
    """The chosen one with its reason; one that cannot be served is wrong."""
    repository = ["--repository", str(tmp_path / "models"), "--port", "0"]
    automatic = run_vitriton(["doctor", *repository], tmp_path)
    wanted = run_vitriton(["doctor", *repository, "--profile", "gpu"], tmp_path)

    assert "configuration `cpu`: there is no NVIDIA GPU" in automatic.stdout
    assert "WRONG device: --profile gpu needs an NVIDIA GPU" in wanted.stdout
