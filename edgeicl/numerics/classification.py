"""How well labels were predicted.

Notation: N examples, L labels; predictions and gold labels are label indices [N].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measures:
    """Shares from 0 to 1. Means over labels are over those that occur in the data."""

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    accuracy_by_label: dict[str, float]


def measures(predicted: NDArray[Any], gold: NDArray[np.int64], labels: Sequence[str]) -> Measures:
    """Accuracy, its mean over labels, and the mean F1 over labels (MetaICL's macro-F1)."""
    from sklearn.metrics import f1_score, recall_score

    present = np.unique(gold)
    recalls = recall_score(gold, predicted, labels=present, average=None, zero_division=0.0)
    return Measures(
        accuracy=float((np.asarray(predicted) == gold).mean()),
        balanced_accuracy=float(np.mean(recalls)),
        macro_f1=float(f1_score(gold, predicted, labels=present, average="macro", zero_division=0.0)),
        accuracy_by_label={labels[label]: float(share) for label, share in zip(present, recalls, strict=True)},
    )


def rank_of_gold(scores: NDArray[Any], gold: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each example's gold label, from 1, among scores [N, L]; of equal scores the first wins."""
    own = np.take_along_axis(scores, gold[:, None], axis=1)
    before = np.arange(scores.shape[1]) < gold[:, None]
    return np.asarray(1 + ((scores > own) | ((scores == own) & before)).sum(axis=1), dtype=np.int64)
