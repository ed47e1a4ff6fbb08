"""Our Triton backend: what the embedded Triton answers, and how instances share the threads."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import tritonclient.grpc

from exporter.config_pbtxt import parse_pbtxt, to_pbtxt
from exporter.graph import load_graph
from tests.stack import Stack, running_stack

MODEL = "test/vit"
ENTRY = "test--vit"
THREADS = 4
STUB = "triton_python_b"

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="models compute on the GPU")


def pixels(images: int) -> npt.NDArray[np.uint8]:
    generator = np.random.default_rng(images)
    return generator.integers(0, 256, (images, 224, 224, 3), dtype=np.uint8)


def infer(stack: Stack, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    tensor = tritonclient.grpc.InferInput("pixel_values", list(batch.shape), "UINT8")
    tensor.set_data_from_numpy(batch)
    with tritonclient.grpc.InferenceServerClient(stack.triton_grpc_url) as triton:
        logits: npt.NDArray[np.float32] = triton.infer(ENTRY, [tensor]).as_numpy("logits")
    return logits


def test_logits_are_those_of_the_exported_graph(repository: Path, stack: Stack) -> None:
    """Of each request its own, also where Triton computes several requests in one batch."""
    graph = load_graph(repository / ENTRY / "1" / "model.pt")
    requests = [pixels(n) for n in (1, 3, 8, 2, 1)]
    with torch.inference_mode():
        expected = [graph(torch.from_numpy(batch)).numpy() for batch in requests]

    with ThreadPoolExecutor(len(requests)) as clients:
        found = list(clients.map(lambda batch: infer(stack, batch), requests))

    for logits, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5)
    assert np.abs(expected[2][0] - expected[2][1]).max() > 1e-3, "equal logits would prove nothing"


@on_cpu
def test_stack_on_the_cpu_sees_no_gpu(stack: Stack) -> None:
    """So an export that `serve` starts verifies on the CPU what the CPU will compute."""
    (triton,) = (each for each in stack.processes() if each.name() == "tritonserver")

    assert triton.environ()["CUDA_VISIBLE_DEVICES"] == ""


def threads_of_instances(stack: Stack) -> list[int]:
    """OpenMP starts the threads of an instance when it first computes."""
    return [p.num_threads() for p in stack.processes() if p.name().startswith(STUB)]


def with_instances(repository: Path, folder: Path, count: int) -> Path:
    """A repository whose model has so many instances."""
    entry = folder / "models" / ENTRY
    shutil.copytree(repository / ENTRY, entry)
    path = entry / "configs" / "cpu.pbtxt"
    config = parse_pbtxt(path.read_text())
    config.instance_group[0].count = count
    path.write_text(to_pbtxt(config))
    return entry.parent


@on_cpu
def test_instances_share_the_threads(repository: Path, tmp_path: Path) -> None:
    """One instance computes with all threads, each of two with half of them."""
    threads = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        models = with_instances(repository, folder, count)
        # A model that is loaded has computed: Triton warms up every instance.
        with running_stack([MODEL], models, folder, OMP_NUM_THREADS=str(THREADS)) as stack:
            threads[count] = threads_of_instances(stack)

    (alone,) = threads[1]
    assert threads[2] == [alone - THREADS // 2] * 2
