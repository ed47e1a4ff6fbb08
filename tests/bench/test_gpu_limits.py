"""What is measured on a GPU without a server, on the CPU through the same code."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest
import torch

from bench.gpu.graph import graph_speeds
from bench.gpu.resize import difference, torch_at_once, torch_one_by_one
from bench.gpu.watch import Sample, Watch, by_nvidia_smi, connections
from bench.servers import Server
from tests.pictures import gradient


class _Sum(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().sum((1, 2, 3))[:, None]


def test_graph_has_a_row_for_each_kind_and_batch(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(_Sum()), str(tmp_path / "model.pt"))

    rows = list(graph_speeds(tmp_path / "model.pt", [1, 2], 0.0))

    assert {(row["kind"], row["batch"]) for row in rows} == {
        (kind, batch) for kind in ("TorchScript", "CUDA graph") for batch in (1, 2)
    }
    assert all(row[way]["images_per_s"] > 0 for row in rows for way in ("alone", "with_copies"))


@pytest.mark.parametrize(
    "resize", [pytest.param(torch_at_once, id="at-once"), pytest.param(torch_one_by_one, id="one")]
)
def test_pictures_of_mixed_sizes_keep_their_order(resize: object) -> None:
    """Bilinear is within one grey level of Pillow, which a swapped pair is not."""
    images = [gradient(300, 200), gradient(250, 400), gradient(300, 200).rotate(180)]
    found = difference(resize, images, "bilinear")  # type: ignore[arg-type]  # parametrised
    assert found["max"] <= 1


def _fake_nvidia_smi(folder: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho '{output}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_nvidia_smi_gives_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_nvidia_smi(tmp_path, "97, 655.32, 3276", monkeypatch)
    assert by_nvidia_smi() == Sample(97.0, 655.32, 3276.0)


def test_figure_that_nvidia_smi_lacks_leaves_the_sample_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_nvidia_smi(tmp_path, "97, [N/A], 3276", monkeypatch)
    assert by_nvidia_smi() is None


def test_connections_of_a_process_are_those_of_its_port() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = listener.getsockname()
        server = Server("server", f"http://127.0.0.1:{address[1]}", (os.getpid(),))
        for _ in range(3):
            stack.enter_context(socket.create_connection(address))
            stack.enter_context(listener.accept()[0])

        assert connections(server) == [3]


def test_watch_gives_medians() -> None:
    samples = iter([Sample(0, 100, 500), Sample(90, 600, 500), Sample(95, 650, 900)])
    over = Event()

    def sample() -> Sample | None:
        found = next(samples, None)
        if found is None:
            over.set()
        return found

    # The port of no process.
    with Watch(Server("server", "http://127.0.0.1:1", (os.getpid(),)), sample) as watch:
        assert over.wait(30)

    assert watch.gpu() == {"utilisation_percent": 90, "power_w": 600, "memory_mib": 500}
    assert watch.connections() == []


def test_machine_without_a_gpu_has_no_figures_of_one() -> None:
    with Watch(Server("server", "http://127.0.0.1:1", (os.getpid(),)), lambda: None) as watch:
        pass
    assert watch.gpu() is None
