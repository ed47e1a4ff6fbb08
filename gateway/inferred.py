"""Images that were inferred together are ranked together: one pass of numpy for all of them.

Under load a call carries a dozen images; one by one their ranking would take three times as long.
Pure.
"""

from typing import Final, NamedTuple

import numpy as np

from gateway.errors import InferenceFailed
from gateway.postprocess import Activation, Logits, Prediction, are_finite, check_shape, rank

# What one caller wants of an image is found for the whole batch, if it is as little as this.
_FEW: Final = 16


class InferredImage(NamedTuple):
    """One image of a batch."""

    batch: "InferredBatch"
    row: int

    def logits(self) -> Logits:
        """Shape `(num_labels,)`, a copy: a view would keep the whole batch."""
        alone: Logits = self.batch.logits[self.row].copy()
        return alone

    def predictions(self, activation: Activation, top_k: int) -> list[Prediction]:
        """The best labels, best first; see `gateway.postprocess.rank`."""
        return self.batch.predictions(self.row, activation, top_k)


class InferredBatch:
    """The logits of one call."""

    def __init__(self, logits: Logits, labels: tuple[str, ...]) -> None:
        """Take the logits, `(n, num_labels)`, and the labels by class id.

        Raises:
            InferenceFailed: Their numbers differ.
        """
        check_shape(logits, len(labels))
        self._finite = are_finite(logits)
        # An image without an answer must not spoil the ranking of the others.
        self.logits = logits if self._finite.all() else np.where(self._finite[:, None], logits, 0)
        self._labels = labels
        self._ranked: tuple[Activation, int] | None = None

    def image(self, index: int) -> InferredImage:
        """One of them.

        Raises:
            InferenceFailed: It has a logit that is NaN or infinite.
        """
        if not self._finite[index]:
            raise InferenceFailed("The model returned a logit that is not a finite number")
        return InferredImage(self, index)

    def predictions(self, index: int, activation: Activation, top_k: int) -> list[Prediction]:
        """The best labels of one image; those of the others are found along with the first."""
        wanted = activation, top_k
        if self._ranked is None and top_k <= _FEW:
            self._ranking = rank(self.logits, activation, top_k)
            self._ranked = wanted
        if self._ranked == wanted:
            return self._ranking.predictions(index, self._labels)
        alone = rank(self.logits[index : index + 1], activation, top_k)
        return alone.predictions(0, self._labels)
