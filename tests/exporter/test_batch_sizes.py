"""The batch sizes at which an export compares the graph with the model."""

import pytest
import torch

from exporter.graph import trace_ignores_batch_size
from exporter.sample import batch_sizes_to_verify, make_sample
from tests.exporter.planted_faults import (
    MAX_BATCH,
    STEPS,
    BakedBatch,
    Classifier,
    MakesTensors,
)


def test_batch_sizes_are_all_or_a_selection() -> None:
    """A selection has the powers of two, three, and the two largest sizes."""
    assert batch_sizes_to_verify(32, may_skip_sizes=True) == (1, 2, 3, 4, 8, 16, 31, 32)
    assert batch_sizes_to_verify(1, may_skip_sizes=True) == (1,)
    assert batch_sizes_to_verify(5, may_skip_sizes=False) == (1, 2, 3, 4, 5)


class BatchInTensor(Classifier):
    """A tensor of the trace's batch size is a constant of the graph, and broadcasts."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().logits(pixels) * torch.full((1,), int(pixels.shape[0]))


class BranchOnBatch(Classifier):
    """A model that uses another operation for another batch size."""

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = super().logits(pixels)
        return logits + 1 if int(pixels.shape[0]) > 2 else logits


@pytest.mark.parametrize(
    ("model", "is_one"),
    [
        (Classifier, True),
        (MakesTensors, True),
        (BakedBatch, False),
        (BatchInTensor, False),
        (BranchOnBatch, False),
    ],
)
def test_program_that_depends_on_the_batch_size_is_recognised(
    model: type[Classifier], is_one: bool
) -> None:
    """The traces differ in a constant, in a tensor, or in an operation."""
    assert trace_ignores_batch_size(model().eval(), STEPS) is is_one


@pytest.mark.parametrize(
    ("model", "compared"), [(Classifier, (1, 2, 3, 4, 7, 8)), (BranchOnBatch, tuple(range(1, 9)))]
)
def test_large_model_with_equal_traces_is_run_at_some_sizes(
    model: type[Classifier], compared: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose traces differ is run at every size, however long that takes."""
    monkeypatch.setattr("exporter.sample._EVERY_SIZE_PARAMETERS", 0)

    assert make_sample(model().eval(), STEPS, MAX_BATCH).batch_sizes == compared
