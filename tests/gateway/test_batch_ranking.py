"""Batches: what one caller gets does not depend on the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.classification.postprocess import InferredBatch, rank
from gateway.errors import InferenceFailed
from gateway.request import Activation
from gateway.tensors import Logits

LABELS = ("a", "b", "c")

_wants = st.tuples(
    st.integers(0, 3), st.sampled_from(["softmax", "sigmoid", "none"]), st.integers(1, 20)
)


@given(arrays(np.float32, (4, 3), elements=st.floats(-9, 9, width=32)), st.lists(_wants))
def test_each_caller_gets_what_it_wants(
    logits: Logits, wants: list[tuple[int, Activation, int]]
) -> None:
    """Whoever asks first, and for what."""
    images = InferredBatch(logits, LABELS).images()

    for index, activation, top_k in wants:
        alone = rank(logits[index : index + 1], activation, top_k).predictions(0, LABELS)
        assert images[index].predictions(activation, top_k) == alone


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_image_without_an_answer_fails_alone(bad: float) -> None:
    """A NaN in JSON kills every client; the others of its call have their answers."""
    logits = np.array([[1, 2, 3], [0, bad, 0]], dtype=np.float32)
    good, none = InferredBatch(logits, LABELS).images()

    good.check()
    assert [p["label"] for p in good.predictions("softmax", 2)] == ["c", "b"]
    with pytest.raises(InferenceFailed):
        none.check()


def test_kept_logits_hold_nothing_else() -> None:
    """A view would keep the whole batch in the cache."""
    _, image = InferredBatch(np.zeros((2, 3), dtype=np.float32), LABELS).images()
    kept = image.logits()

    assert kept.shape == (3,)
    assert kept.base is None
