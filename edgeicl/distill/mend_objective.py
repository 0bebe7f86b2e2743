"""The losses of MEND, one value a demonstration set, in nats (arXiv 2403.06914, section 3).

Notation as in `frozen_reading`.
"""

from __future__ import annotations

from torch import Tensor

from edgeicl.distill.frozen_reading import QueryBatch
from edgeicl.distill.objective import kl_to_teacher


def distillation_term(student: Tensor, teacher: Tensor, batch: QueryBatch, *, sets: int) -> Tensor:
    """KL(after demonstrations || after vectors), the mean over places, then over queries: [S].

    The released code sums over the places of a batch of one; a mean keeps the weight of this term the same
    for long queries and short ones.
    """
    return _mean_of_rows(kl_to_teacher(student, teacher), batch).view(sets, -1).mean(1)


def label_term(student: Tensor, batch: QueryBatch, *, sets: int) -> Tensor:
    """-log p(label words | vectors, query), the mean over queries: [S]."""
    at_label = batch.expected >= 0
    losses = -student[at_label].gather(-1, batch.expected[at_label, None])[:, 0]
    summed = losses.new_zeros(batch.rows).index_add(0, batch.row[at_label], losses)
    return summed.view(sets, -1).mean(1)


def _mean_of_rows(values: Tensor, batch: QueryBatch) -> Tensor:
    zeros = values.new_zeros(batch.rows)
    counts = zeros.index_add(0, batch.row, values.new_ones(len(values)))
    return zeros.index_add(0, batch.row, values) / counts
