"""Rows that a graph is compared at: short ones, alone and in a padded batch, and one that ends the context."""

from __future__ import annotations

import numpy as np

from edgeicl.emit.parity import ParityCase, parity_cases
from tests.unit.tiny_models import POSITIONS


def context_cases(vocabulary: int) -> tuple[ParityCase, ...]:
    """Prefill and decode of one row and of a padded batch; and of a row that ends at the last position."""
    return (
        *parity_cases(vocabulary, POSITIONS, seed=0),
        ParityCase("end of the context", (_row(vocabulary),), 4),
    )


def one_token(vocabulary: int) -> ParityCase:
    """A prompt of a single token."""
    return ParityCase("one token", (_row(vocabulary)[:5],), 4)


def _row(vocabulary: int) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(1).integers(0, vocabulary, POSITIONS))
