"""Batches are padded to the next CUDA graph, and computed without one where there is none.

Capturing itself needs a GPU: `test_gpu.py`.
"""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploy.triton_backend import graphs
from deploy.triton_backend.graphs import ServedGraph, padded_size, refuse_other_logits

SHAPE = (2, 3, 3)
CPU = torch.device("cpu")


@given(st.sets(st.integers(1, 300)), st.integers(1, 400))
def test_padded_size_is_the_smallest_that_holds_the_batch(sizes: set[int], images: int) -> None:
    """None if the batch is larger than every size."""
    found = padded_size(sorted(sizes), images)

    assert found == min((size for size in sizes if size >= images), default=None)


class _Sum(torch.nn.Module):
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values.to(torch.float32).sum((1, 2))


@pytest.fixture
def graph(tmp_path: Path) -> ServedGraph:
    """A graph that sums the pixels of each channel, for batches of up to 8."""
    file = tmp_path / "model.pt"
    example = torch.zeros((2, *SHAPE), dtype=torch.uint8)
    torch.jit.save(torch.jit.trace(_Sum(), example), str(file))
    return ServedGraph(file, CPU, SHAPE, most_images=8)


def capture_by_calling(
    graph: ServedGraph, monkeypatch: pytest.MonkeyPatch, sizes: list[int], broken: set[int]
) -> dict[int, str]:
    """Capture with CUDA's part replaced: a replay calls the graph on the captured memory."""
    calls: list[int] = []

    def capture(call: graphs.Call, example: torch.Tensor, *_: object) -> graphs._Captured:
        if len(example) in broken:
            try:
                raise RuntimeError("CUDA error: operation not permitted\nmore lines")
            finally:
                # As torch does at the end of a capture that has failed.
                raise RuntimeError("the capture was invalidated")
        outputs = torch.zeros((len(example), 3))
        calls.append(len(example))
        return graphs._Captured(lambda: outputs.copy_(call(example)), outputs)

    monkeypatch.setattr(graphs, "_capture", capture)
    for name in ("graph_pool_handle", "Stream", "current_stream"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda: None)
    monkeypatch.setattr("torch.cuda.stream", lambda _: nullcontext())
    failures = graph.capture(sizes)
    assert calls == sorted(set(sizes) - broken, reverse=True), "the largest has to come first"
    return failures


def logits_of(graph: ServedGraph, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a batch, and what they should be."""
    batch = torch.randint(0, 256, (images, *SHAPE), dtype=torch.uint8)
    return graph.logits(graph.inputs(images).copy_(batch)), _Sum()(batch)


def test_every_batch_size_has_its_own_logits(
    graph: ServedGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding leaves nothing of an earlier batch in the answer, whatever graph computes it."""
    assert capture_by_calling(graph, monkeypatch, [1, 2, 4, 8], set()) == {}
    assert graph.captured_sizes == [1, 2, 4, 8]

    for images in (8, 3, 1, 5, 2, 7):
        found, wanted = logits_of(graph, images)
        assert torch.equal(found, wanted)


def test_size_that_cannot_be_captured_is_computed_by_another_graph_or_without(
    graph: ServedGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is reported in one line, with its size, and every batch is still answered."""
    failures = capture_by_calling(graph, monkeypatch, [1, 2, 4, 8], {2, 8})

    assert failures == dict.fromkeys([8, 2], "CUDA error: operation not permitted")
    assert graph.captured_sizes == [1, 4]
    for images in (8, 2, 1, 6):
        found, wanted = logits_of(graph, images)
        assert torch.equal(found, wanted)


def test_replay_with_other_logits_is_refused() -> None:
    """A capture that misses a part of the model is not used."""
    wanted = torch.tensor([[1.0, -9.0], [0.5, 2.0]])
    refuse_other_logits(wanted + 0.1, wanted)

    for wrong in (wanted + 0.3, wanted * float("nan"), wanted[:1]):
        with pytest.raises(RuntimeError, match="a replay"):
            refuse_other_logits(wrong, wanted)
