"""Images that were inferred together are ranked together: one pass of numpy for all of them.

Under load a call carries a dozen images; one by one their ranking would take three times as long.
Pure.
"""

from typing import Final, NamedTuple

import numpy as np

from gateway.classification.postprocess import (
    Activation,
    Logits,
    Prediction,
    Ranking,
    are_finite,
    check_shape,
    rank,
)
from gateway.errors import InferenceFailed

# What one caller wants of an image is found for the whole batch, if it is as little as this.
_FEW: Final = 16


class InferredImage(NamedTuple):
    """One image of a batch."""

    batch: "InferredBatch"
    row: int

    def check(self) -> None:
        """Refuse an image without an answer, before anybody gets or keeps it.

        Raises:
            InferenceFailed: It has a logit that is NaN or infinite.
        """
        if not self.batch.finite[self.row]:
            raise InferenceFailed("The model returned a logit that is not a finite number")

    def logits(self) -> Logits:
        """Shape `(num_labels,)`, a copy: a view would keep the whole batch."""
        alone: Logits = self.batch.logits[self.row].copy()
        return alone

    def predictions(self, activation: Activation, top_k: int) -> list[Prediction]:
        """The best labels, best first; see `gateway.classification.postprocess.rank`."""
        return self.batch.predictions(self.row, activation, top_k)


class InferredBatch:
    """The logits of one call."""

    def __init__(self, logits: Logits, labels: tuple[str, ...]) -> None:
        """Take the logits, `(n, num_labels)`, and the labels by class id.

        Raises:
            InferenceFailed: Their numbers differ.
        """
        check_shape(logits, len(labels))
        self.finite = are_finite(logits)
        # An image without an answer must not spoil the ranking of the others.
        self.logits = logits if self.finite.all() else np.where(self.finite[:, None], logits, 0)
        self._labels = labels
        # One at most: who wants something else than the first has it found for itself.
        self._rankings: dict[tuple[Activation, int], Ranking] = {}

    def images(self) -> list[InferredImage]:
        """Them all, in their order; each to be `check`ed."""
        return [InferredImage(self, row) for row in range(len(self.logits))]

    def predictions(self, row: int, activation: Activation, top_k: int) -> list[Prediction]:
        """The best labels of one image; those of the others are found along with the first."""
        if not self._rankings and top_k <= _FEW:
            self._rankings[activation, top_k] = rank(self.logits, activation, top_k)
        ranking = self._rankings.get((activation, top_k))
        if ranking is not None:
            return ranking.predictions(row, self._labels)
        return rank(self.logits[row : row + 1], activation, top_k).predictions(0, self._labels)
