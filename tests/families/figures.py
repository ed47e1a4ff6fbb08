"""Compare served answers with transformers' and keep the figures for the table in `docs/`."""

from typing import Any, Final

import httpx

from exporter.precision import Precision
from tests.pictures import PICTURES
from tests.reference import ALL_LABELS

FP32_SCORE_TOLERANCE: Final = 1e-5
# Half precision rounds, and with random weights the best labels are often nearly equal.
LOW_PRECISION_SCORE_TOLERANCE: Final[dict[Precision, float]] = {"bf16": 0.1, "fp16": 0.02}
MIN_TOP1_AGREEMENT: Final = 0.75
MIN_SCORE_RANGE: Final = 0.1

Answer = list[dict[str, Any]]
Row = dict[str, Any]


def compare(
    url: str, model_id: str, wanted: dict[str, Answer], family: str, precision: Precision
) -> Row:
    """Classify every picture, check the answers, and return the table's row."""
    worst, agreed, same_order = 0.0, 0, True
    first = {p["label"]: p["score"] for p in next(iter(wanted.values()))}
    moved = 0.0
    with httpx.Client(base_url=url, timeout=60) as client:
        for name, picture in PICTURES.items():
            answer: Answer = client.post(
                f"/models/{model_id}", params={"top_k": ALL_LABELS}, content=picture
            ).json()
            expected = {p["label"]: p["score"] for p in wanted[name]}
            assert len(answer) == len(expected)
            worst = max(worst, *(abs(p["score"] - expected[p["label"]]) for p in answer))
            moved = max(moved, *(abs(expected[label] - first[label]) for label in first))
            agreed += answer[0]["label"] == wanted[name][0]["label"]
            same_order &= [p["label"] for p in answer] == [p["label"] for p in wanted[name]]
    agreement = agreed / len(PICTURES)
    # If all pictures had nearly the same scores, equal scores would prove nothing.
    assert moved >= MIN_SCORE_RANGE
    if precision == "fp32":
        assert worst <= FP32_SCORE_TOLERANCE
        assert same_order
    else:
        assert worst <= LOW_PRECISION_SCORE_TOLERANCE[precision]
        assert agreement >= MIN_TOP1_AGREEMENT
    return {
        "family": family,
        "precision": precision,
        "max_abs_score_difference": float(f"{worst:.1e}"),
        "top1_agreement": round(agreement, 3),
        "pictures": len(PICTURES),
    }
