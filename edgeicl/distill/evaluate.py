"""Accuracy of every method: plain, balanced, per label and per group, macro-F1, ranks of candidate words.

Intervals are over demonstration seeds; a paired test compares methods on the examples that they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.numerics.classification import measures
from edgeicl.numerics.paired_test import paired_difference
from edgeicl.numerics.statistics import estimate
from edgeicl.specs.measurement import AccuracyRow, Estimate, GroupAccuracy, PairedTest, Ranking
from edgeicl.tasks.example import Example

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
_FEW_LABELS = 10
"""Among so few, one of the ten best is no find."""


def accuracy_row(
    method: str,
    data: DataName,
    predictions: Sequence[NDArray[Any]],
    gold: NDArray[np.int64],
    labels: Sequence[str],
    *,
    groups: Sequence[str] = (),
    ranks: Sequence[NDArray[Any]] = (),
) -> AccuracyRow:
    """One row from label indices [N] predicted by each seed's model (one seed for methods without).

    Args:
        groups: Of each example, the value that its accuracy is told apart by; see `Source.breakdown`.
        ranks: By each seed's model, the place of the gold label among all; see `rank_of_gold`.
    """
    of_groups = []
    for group in sorted({group for group in groups if group}):
        chosen = np.array([each == group for each in groups])
        found = _over_seeds([np.asarray(each)[chosen] for each in predictions], gold[chosen], labels)
        of_groups.append(GroupAccuracy(group=group, **found))
    return AccuracyRow(
        method=method,
        data=data,
        **_over_seeds(predictions, gold, labels),
        ranking=_ranking(ranks) if ranks and len(labels) > _FEW_LABELS else None,
        groups=tuple(of_groups),
    )


def require_every_label(data: DataName, examples: Sequence[Example], labels: Sequence[str]) -> None:
    """DataError where a label has no example, so that its accuracy would be unknown."""
    found = {example.label for example in examples}
    missing = [label for label in labels if label not in found]
    if missing:
        raise DataError(
            f"{data}: found no example with the label {', '.join(missing)}; "
            f"expected all of {', '.join(labels)}",
            next_step="raise the source's limit, or check map_labels and drop_labels",
        )


def paired_test(
    method: str,
    predictions: Sequence[NDArray[Any]],
    baseline: str,
    others: Sequence[NDArray[Any]],
    *,
    data: DataName,
    gold: NDArray[np.int64],
) -> PairedTest:
    """`method` against `baseline`, from what each one's runs predicted."""
    ours, theirs = (np.stack([np.asarray(run) == gold for run in runs]) for runs in (predictions, others))
    found = paired_difference(ours, theirs)
    return PairedTest(
        method=method,
        baseline=baseline,
        data=data,
        points=100 * found.mean,
        low=100 * found.low,
        high=100 * found.high,
        p_value=found.p_value,
        examples=len(gold),
    )


def _over_seeds(
    predictions: Sequence[NDArray[Any]], gold: NDArray[np.int64], labels: Sequence[str]
) -> dict[str, Any]:
    """The fields that a row and its groups have in common."""
    found = [measures(predicted, gold, labels) for predicted in predictions]
    return {
        "accuracy": estimate([one.accuracy for one in found], within=_SHARE),
        "balanced_accuracy": estimate([one.balanced_accuracy for one in found], within=_SHARE),
        "macro_f1": estimate([one.macro_f1 for one in found], within=_SHARE),
        "accuracy_by_label": {
            label: estimate([one.accuracy_by_label[label] for one in found], within=_SHARE)
            for label in found[0].accuracy_by_label
        },
        "examples": len(gold),
    }


def _ranking(ranks: Sequence[NDArray[Any]]) -> Ranking:
    def share(within: int) -> Estimate:
        return estimate([float((places <= within).mean()) for places in ranks], within=_SHARE)

    return Ranking(
        precision_at_1=share(1),
        precision_at_10=share(10),
        mean_reciprocal_rank=estimate([float((1 / places).mean()) for places in ranks], within=_SHARE),
    )
