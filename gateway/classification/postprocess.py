"""Turn a batch's logits into labels and scores, as transformers' pipeline does.

Pure numpy in float32. Follows `ImageClassificationPipeline.postprocess` of transformers 4.49 and
later; earlier releases chose other activations for some problem types.
The images of one call are ranked in one pass: one by one, ranking would take three times as long.
"""

from math import isfinite
from typing import Final, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from gateway.errors import InferenceFailed
from gateway.modelspec import ProblemType
from gateway.request import Activation
from gateway.tensors import Logits

Flags = npt.NDArray[np.bool_]

# Up to this `top_k`, the first caller's ranking is made for all images of the batch.
_MAX_SHARED_TOP_K: Final = 16


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
    """Which of a batch's images have logits without NaN or infinity; shape `(n,)`."""
    flat = logits.ravel()
    # A value that is not finite makes this sum not finite. So does a sum too large for a float,
    # hence the second test.
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
    # `exp` may overflow to infinity, whose reciprocal is the right score, 0.
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
        """The best labels of one image. Scores are float32 values, widened to double."""
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
    # Sorting only the scores that can be among the best takes a fifth of sorting all.
    least = np.partition(scores, num_labels - k, axis=1)[:, num_labels - k, np.newaxis]
    candidates = np.flatnonzero(scores >= least)
    image, found = candidates // num_labels, scores.ravel()[candidates]
    # The sort is stable, so equal scores of an image stay in the order of their class ids.
    order = np.lexsort((-found, image))
    if len(order) > images * k:
        starts = np.searchsorted(image, np.arange(images))
        order = order[(starts[:, np.newaxis] + np.arange(k)).ravel()]
    shape = images, k
    return Ranking((candidates[order] % num_labels).reshape(shape), found[order].reshape(shape))


class InferredImage(NamedTuple):
    """One image of a batch."""

    batch: "InferredBatch"
    row: int

    @property
    def is_finite(self) -> bool:
        """Whether it has no logit that is NaN or infinite."""
        return bool(self.batch.finite[self.row])

    def check(self) -> None:
        """Refuse an image without an answer, before its logits are used or cached.

        Raises:
            InferenceFailed: It has a logit that is NaN or infinite.
        """
        if not self.is_finite:
            raise InferenceFailed("The model returned a logit that is not a finite number")

    def logits(self) -> Logits:
        """Shape `(num_labels,)`; a copy, as a view would keep the whole batch."""
        alone: Logits = self.batch.logits[self.row].copy()
        return alone

    def predictions(self, activation: Activation, top_k: int) -> list[Prediction]:
        """The best labels, best first; see `rank`."""
        return self.batch.predictions(self.row, activation, top_k)


class InferredBatch:
    """The logits of the images of one call."""

    def __init__(self, logits: Logits, labels: tuple[str, ...]) -> None:
        """Take the logits, `(n, num_labels)`, and the labels by class id.

        Raises:
            InferenceFailed: Their numbers differ.
        """
        check_shape(logits, len(labels))
        self.finite = are_finite(logits)
        # Zeros for an image that is not finite: it must not spoil the ranking of the others.
        self.logits = logits if self.finite.all() else np.where(self.finite[:, None], logits, 0)
        self._labels = labels
        self._shared: tuple[Activation, int, Ranking] | None = None

    def images(self) -> list[InferredImage]:
        """All images, in their order. Each has to be checked."""
        return [InferredImage(self, row) for row in range(len(self.logits))]

    def predictions(self, row: int, activation: Activation, top_k: int) -> list[Prediction]:
        """The best labels of one image.

        The first caller's parameters rank all images. Other parameters are ranked separately.
        """
        if self._shared is None and top_k <= _MAX_SHARED_TOP_K:
            self._shared = activation, top_k, rank(self.logits, activation, top_k)
        if self._shared is not None and self._shared[:2] == (activation, top_k):
            return self._shared[2].predictions(row, self._labels)
        return rank(self.logits[row : row + 1], activation, top_k).predictions(0, self._labels)
