"""Turn a batch's logits into labels and scores, as transformers' pipeline does.

Pure numpy in float32. Follows `ImageClassificationPipeline.postprocess` of transformers 4.49 and
later; earlier releases chose other activations for some problem types.
"""

from math import isfinite
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from gateway.errors import InferenceFailed
from gateway.modelspec import ProblemType

Activation = Literal["sigmoid", "softmax", "none"]
Logits = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


class Prediction(TypedDict):
    """One element of the answer."""

    label: str
    score: float


def default_activation(problem_type: ProblemType | None, num_labels: int) -> Activation:
    """The activation when the request names none."""
    if problem_type == "regression":
        return "none"
    if problem_type == "multi_label_classification" or num_labels == 1:
        return "sigmoid"
    return "softmax"


def check_shape(logits: Logits, num_labels: int) -> None:
    """Refuse a batch of logits, `(n, num_labels)`, that belong to other labels.

    Raises:
        InferenceFailed: Their number is not that of the labels.
    """
    if logits.shape[1] != num_labels:
        raise InferenceFailed(
            f"The model returned {logits.shape[1]} logits for {num_labels} labels; export it again"
        )


def are_finite(logits: Logits) -> Flags:
    """Which of a batch's images, shape `(n,)`, have logits without NaN or infinity."""
    flat = logits.ravel()
    # One that is not finite makes this sum so; a sum too large for a float means nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        total = flat.dot(flat)
    if isfinite(total):
        return np.ones(len(logits), np.bool_)
    finite: Flags = np.isfinite(logits).all(axis=1)
    return finite


def activate(logits: Logits, activation: Activation) -> Logits:
    """Scores of `logits`, shape `(n, num_labels)`, same shape and dtype."""
    if activation == "none":
        return logits
    # What overflows is an infinity on the way to the right answer, 0.
    with np.errstate(over="ignore"):
        if activation == "sigmoid":
            return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Logits = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scores


class Ranking(NamedTuple):
    """The best classes of each image of a batch, best first; both `(n, k)`."""

    classes: npt.NDArray[np.intp]
    scores: Logits

    def predictions(self, index: int, labels: tuple[str, ...]) -> list[Prediction]:
        """Those of one image. Scores are the float32 values widened to double, not rounded."""
        classes, scores = self.classes[index].tolist(), self.scores[index].tolist()
        return [
            {"label": labels[i], "score": score} for i, score in zip(classes, scores, strict=True)
        ]


def rank(logits: Logits, activation: Activation, top_k: int) -> Ranking:
    """The `top_k` best classes of each image, or all where there are fewer.

    Ties go to the lower class id.

    Args:
        logits: Finite, `(n, num_labels)`.
        activation: Makes them scores.
        top_k: At least 1.
    """
    scores = activate(logits, activation)
    images, num_labels = scores.shape
    k = min(top_k, num_labels)
    # Sorting the few that can be among the best is a fifth of sorting all.
    least = np.partition(scores, num_labels - k, axis=1)[:, num_labels - k, np.newaxis]
    candidates = np.flatnonzero(scores >= least)
    image, found = candidates // num_labels, scores.ravel()[candidates]
    # Stable, so equal ones of an image stay in the order of their ids.
    order = np.lexsort((-found, image))
    if len(order) > images * k:
        starts = np.searchsorted(image, np.arange(images))
        order = order[(starts[:, np.newaxis] + np.arange(k)).ravel()]
    shape = images, k
    return Ranking((candidates[order] % num_labels).reshape(shape), found[order].reshape(shape))
