"""Logits become scores and ranked labels, or are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.classification.postprocess import (
    activate,
    are_finite,
    check_shape,
    default_activation,
    rank,
)
from gateway.errors import InferenceFailed
from gateway.modelspec import ProblemType
from gateway.request import Activation
from gateway.tensors import Logits

# Either few different values, so that many are equal, or any values.
_values = st.one_of(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-200, 200, width=32))
finite_logits = arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=_values
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
    """The default function is that of transformers 4.49 and later."""
    assert default_activation(problem_type, num_labels) == activation


@given(finite_logits)
def test_softmax_sums_to_one(logits: Logits) -> None:
    """Softmax scores of any finite logits are at least 0 and sum to 1."""
    scores = activate(logits, "softmax")

    assert scores.dtype == np.float32
    assert (scores >= 0).all()
    assert scores.sum(axis=1) == pytest.approx(1, abs=1e-5)


@given(finite_logits)
def test_sigmoid_is_between_zero_and_one(logits: Logits) -> None:
    """Sigmoid scores of any finite logits are between 0 and 1."""
    scores = activate(logits, "sigmoid")

    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()


@given(finite_logits, st.integers(1, 60), st.sampled_from(["softmax", "sigmoid", "none"]))
def test_ranking_equals_a_plain_sort(logits: Logits, top_k: int, activation: Activation) -> None:
    """Labels are ranked by score, equal ones by class id, and cut to `top_k`."""
    names = labels(logits.shape[1])

    ranking = rank(logits, activation, top_k)

    for index, scores in enumerate(activate(logits, activation).tolist()):
        best = sorted(range(len(names)), key=lambda i: (-scores[i], i))[:top_k]
        assert ranking.predictions(index, names) == [
            {"label": names[i], "score": scores[i]} for i in best
        ]


@given(finite_logits, st.integers(1, 60), st.sampled_from(["softmax", "sigmoid", "none"]))
def test_ranking_of_an_image_does_not_depend_on_its_batch(
    logits: Logits, top_k: int, activation: Activation
) -> None:
    """An image has the same ranking in a batch as alone."""
    together = rank(logits, activation, top_k)

    for index in range(len(logits)):
        alone = rank(logits[index : index + 1], activation, top_k)
        assert alone.classes[0].tolist() == together.classes[index].tolist()
        assert alone.scores[0].tolist() == together.scores[index].tolist()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_largest_logits_give_scores(activation: Activation) -> None:
    """Logits whose difference overflows float32 give scores without a warning."""
    logits = np.array([[3e38, -3e38]], dtype=np.float32)

    assert activate(logits, activation).tolist() == [[1, 0]]


def test_scores_are_float32_widened_not_rounded() -> None:
    """A score is the double of its float32 value, as transformers' `.item()` gives it."""
    logits = np.array([[0.1, 0.2]], dtype=np.float32)

    best = rank(logits, "none", 1).predictions(0, labels(2))[0]

    assert best["score"] == float(np.float32(0.2)) != 0.2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_are_finite_finds_images_with_bad_logits(bad: float) -> None:
    """`are_finite` is false exactly for images with a logit that is not finite."""
    logits = np.array([[0, 1], [0, bad], [3e38, 3e38]], dtype=np.float32)

    assert are_finite(logits).tolist() == [True, False, True]


def test_wrong_number_of_logits_is_refused() -> None:
    """Logits are refused if their number is not that of the labels."""
    with pytest.raises(InferenceFailed):
        check_shape(np.zeros((1, 3), dtype=np.float32), 2)
