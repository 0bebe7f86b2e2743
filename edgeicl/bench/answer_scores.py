"""Log-probabilities of a task's answers after queries. Numpy alone: this file runs on devices too.

Notation: N queries, B of a batch, S demonstration sets (1 where there is none), L labels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    from edgeicl.numerics.padding import right_padded
except ImportError:  # On a device the files lie side by side.
    from padding import right_padded  # type: ignore[import-not-found, no-redef]

Floats = npt.NDArray[np.float64]


def needed_positions(rows: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> int:
    """Of a cache that holds the longest query and the longest answer."""
    return max(map(len, rows)) + max(map(len, answers))


def score_rows(
    decoder: Any,
    sets: Sequence[Mapping[str, npt.NDArray[Any]]],
    rows: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    mean: bool,
    advance: Callable[[int], None],
) -> Floats:
    """Scores [S, N, L]: sums of log-probabilities of the answers' tokens, or their means.

    `decoder` takes a fixed number of rows at once; `advance` is told of queries that are done.
    """
    batch = decoder.batch_size
    prefixes: Sequence[Mapping[str, npt.NDArray[Any]] | None] = [*sets] or [None]
    scores = np.zeros((len(prefixes), len(rows), len(answers)))
    # Queries of like length together: little is computed for padding.
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for number, prefix in enumerate(prefixes):
        if prefix is not None:
            decoder.load_prefix(prefix)
        for start in range(0, len(order), batch):
            indices = order[start : start + batch]
            # The cache has a fixed number of rows; the last batch repeats one of its own.
            filled = indices + indices[:1] * (batch - len(indices))
            found = score_answers(decoder, [rows[index] for index in filled], answers)
            if mean:
                found /= [len(answer) for answer in answers]
            scores[number, indices] = found[: len(indices)]
            advance(len(indices))
    return scores


def score_answers(decoder: Any, rows: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Floats:
    """Log-probability [B, L] of each answer's tokens after each row; further tokens are decoded in turn."""
    ids, lengths = right_padded(rows)
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
    first = log_probabilities(decoder.prefill(ids, mask))
    scores = first[:, [answer[0] for answer in answers]]
    fresh = True
    for column, answer in enumerate(answers):
        if len(answer) > 1 and not fresh:
            decoder.prefill(ids, mask)
        for token, following in pairwise(answer):
            after = log_probabilities(decoder.decode([token] * len(rows)))
            scores[:, column] += after[:, following]
            fresh = False
    return scores


def log_probabilities(values: npt.NDArray[np.floating]) -> Floats:
    """Log-softmax over the last axis, in double precision: of logits [B, V], or of label scores [B, L]."""
    wide = values.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    result: Floats = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return result
