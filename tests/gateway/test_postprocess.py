"""Activation, ranking and refusal of logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.errors import InferenceFailed
from gateway.modelspec import ProblemType
from gateway.postprocess import (
    Activation,
    Logits,
    activate,
    check_logits,
    default_activation,
    top_predictions,
)

finite_logits = arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(-200, 200, width=32),
)


def labels(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{i}" for i in range(count))


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "activation"),
    [
        ("regression", 3, "none"),
        ("regression", 1, "none"),
        ("multi_label_classification", 3, "sigmoid"),
        (None, 1, "sigmoid"),
        ("single_label_classification", 3, "softmax"),
        (None, 2, "softmax"),
    ],
)
def test_default_activation_follows_the_problem_type(
    problem_type: ProblemType | None, num_labels: int, activation: Activation
) -> None:
    """The rule of transformers 4.49 and later."""
    assert default_activation(problem_type, num_labels) == activation


@given(finite_logits)
def test_softmax_sums_to_one(logits: Logits) -> None:
    """Whatever the logits, the scores are shares."""
    scores = activate(logits, "softmax")

    assert scores.dtype == np.float32
    assert (scores >= 0).all()
    assert scores.sum() == pytest.approx(1, abs=1e-5)


@given(finite_logits)
def test_sigmoid_is_between_zero_and_one(logits: Logits) -> None:
    """Very negative logits give 0, without a warning."""
    scores = activate(logits, "sigmoid")

    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()


@given(finite_logits, st.integers(1, 60), st.sampled_from(["softmax", "sigmoid", "none"]))
def test_top_predictions_are_sorted_clipped_and_stable(
    logits: Logits, top_k: int, activation: Activation
) -> None:
    """Best first, at most as many as there are labels, ties to the lower class id."""
    names = labels(len(logits))

    predictions = top_predictions(logits, names, activation, top_k)

    ranked = [(-p["score"], names.index(p["label"])) for p in predictions]
    assert len(predictions) == min(top_k, len(logits))
    assert ranked == sorted(ranked)


def test_scores_are_float32_widened_not_rounded() -> None:
    """Clients get the very double that transformers' `.item()` gives."""
    logits = np.array([0.1, 0.2], dtype=np.float32)

    best = top_predictions(logits, labels(2), "none", 1)[0]

    assert best["score"] == float(np.float32(0.2)) != 0.2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    """A NaN in JSON kills every client."""
    with pytest.raises(InferenceFailed):
        check_logits(np.array([0, bad], dtype=np.float32), 2)


def test_another_number_of_logits_than_labels_is_refused() -> None:
    """Labels must never be given to the wrong logits."""
    with pytest.raises(InferenceFailed):
        check_logits(np.zeros(3, dtype=np.float32), 2)
