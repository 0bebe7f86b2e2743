"""Accuracy of every method: plain, balanced and per label, with intervals over demonstration seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.numerics.statistics import estimate
from edgeicl.specs.measurement import AccuracyRow

ZERO_SHOT_STUDENT = "zero-shot student"
IN_CONTEXT_STUDENT = "in-context student"
FINE_TUNING = "pattern-based fine-tuning"
CONTEXT_DISTILLATION = "context distillation"
MEND = "MEND"
MEND_VOTE = "MEND, majority of the deployed sets"
IN_CONTEXT_TUNING = "in-context tuning"
ICL_DISTILLATION = "in-context learning distillation"
SINGLE_DOMAIN_DISTILLATION = "single-domain distillation"
MIXED_DOMAIN_DISTILLATION = "mixed-domain distillation"
META_KD = "Meta-KD"
ZERO_SHOT_TEACHER = "zero-shot teacher"
IN_CONTEXT_TEACHER = "in-context teacher"
SINGLE_DOMAIN_TEACHER = "single-domain teacher"
MIXED_DOMAIN_TEACHER = "mixed-domain teacher"
META_TEACHER = "meta-teacher"
TUNED_TEACHER = "in-context tuned teacher"

TABLE_ORDER = (
    ZERO_SHOT_STUDENT,
    IN_CONTEXT_STUDENT,
    FINE_TUNING,
    CONTEXT_DISTILLATION,
    MEND,
    MEND_VOTE,
    IN_CONTEXT_TUNING,
    ICL_DISTILLATION,
    SINGLE_DOMAIN_DISTILLATION,
    MIXED_DOMAIN_DISTILLATION,
    META_KD,
    ZERO_SHOT_TEACHER,
    IN_CONTEXT_TEACHER,
    SINGLE_DOMAIN_TEACHER,
    MIXED_DOMAIN_TEACHER,
    META_TEACHER,
    TUNED_TEACHER,
)

DataName = Literal["in_domain", "out_of_domain"]

_SHARE = (0.0, 1.0)


def accuracy_row(
    method: str,
    data: DataName,
    predictions: Sequence[NDArray[Any]],
    gold: NDArray[np.int64],
    labels: Sequence[str],
) -> AccuracyRow:
    """One row from label indices [N] predicted by each seed's model (one seed for methods without).

    Raises:
        DataError: a label has no example, so its accuracy is unknown.
    """
    missing = [label for index, label in enumerate(labels) if not (gold == index).any()]
    if missing:
        raise DataError(
            f"{data}: found no example with the label {', '.join(missing)}; "
            f"expected all of {', '.join(labels)}",
            next_step="raise the source's limit, or check map_labels and drop_labels",
        )
    correct = [np.asarray(predicted) == gold for predicted in predictions]
    by_label = [[float(hits[gold == label].mean()) for label in range(len(labels))] for hits in correct]
    return AccuracyRow(
        method=method,
        data=data,
        accuracy=estimate([float(hits.mean()) for hits in correct], within=_SHARE),
        balanced_accuracy=estimate([float(np.mean(values)) for values in by_label], within=_SHARE),
        accuracy_by_label={
            label: estimate([values[index] for values in by_label], within=_SHARE)
            for index, label in enumerate(labels)
        },
        examples=len(gold),
    )
