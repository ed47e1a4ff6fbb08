"""The threads that a model on the CPU computes with, as the kernel counts them."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

from exporter.config_pbtxt import parse_pbtxt, to_pbtxt
from tests.local.instances import another_instance_computes, instances
from tests.pictures import photo
from tests.stack import WAIT_TIMEOUT_S, Stack, running_stack, wait_until

MODEL = "test/vit"
THREADS = 4


@pytest.fixture
def four_threads(repository: Path, tmp_path: Path) -> Path:
    """A repository whose model has so many on any machine, and instances that take turns."""
    entry = tmp_path / "models" / "test--vit"
    shutil.copytree(repository / "test--vit", entry)
    path = entry / "configs" / "cpu.pbtxt"
    config = parse_pbtxt(path.read_text())
    config.parameters["INTRA_OP_THREAD_COUNT"].string_value = str(THREADS)
    for group in config.instance_group:
        group.ClearField("rate_limiter")
    path.write_text(to_pbtxt(config))
    return entry.parent


def classify(stack: Stack) -> None:
    answer = httpx.post(
        f"{stack.url}/models/{MODEL}",
        content=photo("china"),
        headers={"x-use-cache": "false"},
        timeout=WAIT_TIMEOUT_S,
    )
    assert answer.status_code == 200, answer.text


def threads_of_instances(stack: Stack) -> list[int]:
    """OpenMP starts and ends them when the number to compute with changes."""
    return [p.num_threads() for p in instances(stack)]


def wakes_of_instances(stack: Stack) -> list[int]:
    """How often each has had to wait for work since it started."""
    return [p.num_ctx_switches().voluntary for p in instances(stack)]


def images_decoded(stack: Stack) -> int:
    """Counted by the gateway."""
    name = 'gateway_stage_duration_seconds_count{stage="decode"} '
    text = httpx.get(f"{stack.url}/metrics").text
    return int(float(text.partition(name)[2].split()[0]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="models compute on the GPU")
def test_instances_share_the_processors(four_threads: Path, tmp_path: Path) -> None:
    """All threads for the one that is alone, half of them while another computes."""
    with running_stack([MODEL], four_threads, tmp_path) as stack:
        # They were warmed up at the same time; whatever they had then is not what is asked.
        with another_instance_computes(stack):
            for _ in range(8):
                classify(stack)
            half = threads_of_instances(stack)

        def have(wanted: list[int]) -> bool:
            classify(stack)
            return threads_of_instances(stack) == wanted

        assert len(half) == 2
        wait_until(lambda: have([n + THREADS // 2 for n in half]))
        with another_instance_computes(stack):
            wait_until(lambda: have(half))


@pytest.mark.skipif(torch.cuda.is_available(), reason="models compute on the GPU")
def test_lone_images_go_to_one_instance(repository: Path, tmp_path: Path) -> None:
    """The same one, whose caches are warm; the other sleeps."""
    images = 20
    with running_stack([MODEL], repository, tmp_path) as stack:
        classify(stack)
        before = wakes_of_instances(stack)
        for _ in range(images):
            classify(stack)
        after = wakes_of_instances(stack)

        idle, busy = sorted(now - then for now, then in zip(after, before, strict=True))
        assert busy >= images
        assert idle < images // 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="models compute on the GPU")
def test_while_the_first_instance_computes_the_other_answers(
    repository: Path, tmp_path: Path
) -> None:
    """The first is preferred, not the only one."""
    with running_stack([MODEL], repository, tmp_path) as stack, ThreadPoolExecutor(1) as client:
        before = wakes_of_instances(stack)
        for _ in range(8):
            classify(stack)
        wakes = [now - then for now, then in zip(wakes_of_instances(stack), before, strict=True)]
        first = instances(stack)[wakes.index(max(wakes))]
        decoded = images_decoded(stack)
        first.suspend()
        try:
            with_the_first = client.submit(classify, stack)
            # Decoded, it leaves at once: the next image cannot share its call to Triton.
            wait_until(lambda: images_decoded(stack) > decoded)
            classify(stack)
            assert not with_the_first.done()
        finally:
            first.resume()
        with_the_first.result(WAIT_TIMEOUT_S)
