"""Attention of sequences that lie end to end, each to itself and to what stands before them all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.models.anatomy import Anatomy

_ATTENDED_AT_ONCE = 8  # sequences of about the same length, so that little is padded


class Attention:
    """Notation: S sequences, L tokens of the longest, P tokens before all, T of these and all sequences'.

    Args:
        anatomy: Whose heads.
        lengths: Tokens of each sequence.
        before: P, which attend to themselves and are attended to by every sequence.
    """

    def __init__(self, anatomy: Anatomy, lengths: Sequence[int], before: int) -> None:
        self._heads, self._kv_heads, self._head_size = anatomy.heads, anatomy.kv_heads, anatomy.head_size
        self._before = before
        self._batches, self._places = _by_length(lengths, before)

    def __call__(self, projected: Tensor) -> Tensor:
        """What the heads find, [T, heads * head size], for queries, keys and values laid end to end."""
        before = projected[: self._before]
        parts = [self._of_batch(projected[rows], before).flatten(0, 1) for rows in self._batches]
        own = torch.cat(parts)[self._places]
        return torch.cat([self._of_batch(before[None], before[:0])[0], own]) if len(before) else own

    def _of_batch(self, rows: Tensor, before: Tensor) -> Tensor:
        """The same for sequences [S, L, ...] that are padded at their ends, behind `before` [P, ...]."""
        count, length = rows.shape[:2]
        queries = self._heads * self._head_size
        all_rows = torch.cat([before.expand(count, -1, -1), rows], dim=1) if len(before) else rows
        query, key, value = (
            part.reshape(*part.shape[:2], -1, self._head_size).transpose(1, 2)  # [S, heads, tokens, head size]
            for part in (rows[..., :queries], *all_rows[..., queries:].chunk(2, dim=-1))
        )
        seen = None
        if len(before):
            seen = torch.ones(length, len(before) + length, dtype=torch.bool).tril(len(before))
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=seen is None, enable_gqa=self._kv_heads < self._heads
        )
        return attended.transpose(1, 2).flatten(2)


def _by_length(lengths: Sequence[int], before: int) -> tuple[list[Tensor], Tensor]:
    """Batches of sequences that lie end to end behind `before` rows: the rows [S, L] of each, and a way back.

    A shorter sequence is padded with its last row. What is found for all batches, laid end to end, has each
    sequence's own tokens at the places [T] of the second.
    """
    starts = before + np.cumsum([0, *lengths[:-1]])
    order = np.argsort(lengths, kind="stable")
    batches: list[Tensor] = []
    places: dict[int, NDArray[np.int64]] = {}
    laid = 0
    for first in range(0, len(order), _ATTENDED_AT_ONCE):
        chosen = order[first : first + _ATTENDED_AT_ONCE]
        longest = max(lengths[number] for number in chosen)
        offsets = [np.minimum(np.arange(longest), lengths[number] - 1) for number in chosen]
        batches.append(torch.from_numpy(starts[chosen][:, None] + np.stack(offsets)))
        for number in chosen:
            places[number] = laid + np.arange(lengths[number])
            laid += longest
    return batches, torch.from_numpy(np.concatenate([places[number] for number in range(len(lengths))]))
