"""Turn one image's logits into labels and scores, as transformers' pipeline does.

Pure numpy in float32. Follows `ImageClassificationPipeline.postprocess` of transformers 4.49 and
later; earlier releases chose other activations for some problem types.
"""

from math import isfinite
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from gateway.errors import InferenceFailed
from gateway.modelspec import ProblemType

Activation = Literal["sigmoid", "softmax", "none"]
Logits = npt.NDArray[np.float32]


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


def check_logits(logits: Logits, num_labels: int) -> None:
    """Refuse logits that are no answer; before they are cached.

    Raises:
        InferenceFailed: One is NaN or infinite, or their number is not that of the labels.
    """
    if logits.shape != (num_labels,):
        raise InferenceFailed(
            f"The model returned {logits.size} logits for {num_labels} labels; export it again"
        )
    # One that is not finite makes this sum so; a sum too large for a float means nothing.
    if not isfinite(logits.dot(logits)) and not np.isfinite(logits).all():
        raise InferenceFailed("The model returned a logit that is not a finite number")


def activate(logits: Logits, activation: Activation) -> Logits:
    """Scores of `logits`, shape `(num_labels,)`, same shape and dtype."""
    if activation == "none":
        return logits
    if activation == "sigmoid":
        # exp overflows to inf for very negative logits, and 1/inf is the right answer, 0.
        with np.errstate(over="ignore"):
            return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    exponentials = np.exp(logits - logits.max())
    scores: Logits = exponentials / exponentials.sum()
    return scores


def top_predictions(
    logits: Logits, labels: tuple[str, ...], activation: Activation, top_k: int
) -> list[Prediction]:
    """The `top_k` best labels, best first; ties go to the lower class id.

    Scores are the float32 values widened to double, not rounded; the logits are `check_logits`ed.
    """
    scores = activate(logits, activation)
    if top_k < len(scores):
        # Sorting the few that can be among the best is a fifth of sorting all.
        least = np.partition(scores, -top_k)[-top_k]
        candidates = np.flatnonzero(scores >= least)
    else:
        candidates = np.arange(len(scores))
    best = candidates[np.argsort(-scores[candidates], kind="stable")[:top_k]]
    return [{"label": labels[i], "score": float(scores[i])} for i in best]
