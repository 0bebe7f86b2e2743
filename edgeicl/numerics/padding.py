"""Rows of token ids as one array. Numpy alone: this file runs on devices too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def right_padded(
    rows: Sequence[Sequence[int]], *, padding_id: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids [B, T] filled up at the right, and the rows' true lengths [B]: labels are read at length - 1."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.full((len(rows), int(lengths.max())), padding_id, dtype=np.int64)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = row
    return ids, lengths
