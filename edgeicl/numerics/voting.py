"""One answer from several demonstration sets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def majority_vote(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """The label [N] that most of S sets choose, from their probabilities [S, N, L].

    Each set has one vote, for its most likely label (arXiv 2212.10670). A tie goes to that of the tied labels
    whose mean probability over all sets is highest.
    """
    counts = votes(probabilities)
    tied = counts == counts.max(axis=-1, keepdims=True)
    winners: NDArray[np.int64] = np.where(tied, probabilities.mean(axis=0), -1.0).argmax(axis=-1)
    return winners


def votes(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """How many sets choose each label, [N, L], from their probabilities [S, N, L]."""
    chosen = probabilities.argmax(axis=-1)
    counts: NDArray[np.int64] = (chosen[..., None] == np.arange(probabilities.shape[-1])).sum(axis=0)
    return counts
