"""An image's predictions do not depend on the other images and callers of its batch."""

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

_requests = st.tuples(
    st.integers(0, 3), st.sampled_from(["softmax", "sigmoid", "none"]), st.integers(1, 20)
)


@given(arrays(np.float32, (4, 3), elements=st.floats(-9, 9, width=32)), st.lists(_requests))
def test_batch_gives_the_predictions_of_single_ranking(
    logits: Logits, requests: list[tuple[int, Activation, int]]
) -> None:
    """Each image's predictions equal those of the image ranked alone, for any order of requests."""
    images = InferredBatch(logits, LABELS).images()

    for index, activation, top_k in requests:
        alone = rank(logits[index : index + 1], activation, top_k).predictions(0, LABELS)
        assert images[index].predictions(activation, top_k) == alone


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_only_the_image_with_a_bad_logit_fails(bad: float) -> None:
    """A logit that is not finite fails its own image, and the other images have predictions."""
    logits = np.array([[1, 2, 3], [0, bad, 0]], dtype=np.float32)
    good, none = InferredBatch(logits, LABELS).images()

    good.check()
    assert [p["label"] for p in good.predictions("softmax", 2)] == ["c", "b"]
    with pytest.raises(InferenceFailed):
        none.check()


def test_logits_for_the_cache_are_a_copy() -> None:
    """The logits for the cache are a copy: a view would keep the whole batch in memory."""
    _, image = InferredBatch(np.zeros((2, 3), dtype=np.float32), LABELS).images()
    kept = image.logits()

    assert kept.shape == (3,)
    assert kept.base is None
