"""How queries are laid out in a pass, and where their labels are read.

Padded: a row a query, filled up at the right. No attention mask is needed, because a causal model never
looks to the right of a label. Packed: all queries behind each other in one row, kept apart by the mask, so
that there is no padding and one copy of a prefix serves all.

Verbalizers of one token share one pass. Else there is a pass a label, whose queries go on with the label's
tokens but the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeicl.numerics.padding import right_padded


@dataclass(frozen=True)
class LabelPass:
    """One forward pass: ids [R, T], and the places [B, K] in ids.flatten() whose next tokens are the label's.

    attention_mask [1, 1, T, P + T] is added to attention scores; P are the tokens of a prefix.
    """

    ids: Tensor
    read: Tensor
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None


@dataclass(frozen=True)
class LabelBatch:
    """The passes that B queries take; `tokens` are the label words', in the order of the labels."""

    passes: tuple[LabelPass, ...]
    tokens: tuple[tuple[int, ...], ...]

    @property
    def one_pass(self) -> bool:
        """Whether every label is one token."""
        return all(len(word) == 1 for word in self.tokens)


def padded_batch(
    rows: Sequence[Sequence[int]], tokens: Sequence[tuple[int, ...]], device: torch.device
) -> LabelBatch:
    """A batch for training: a row a query."""
    passes = tuple(
        padded_pass([[*row, *suffix] for row in rows], device, read=len(suffix) + 1)
        for suffix in _suffixes(tokens)
    )
    return LabelBatch(passes, tuple(tokens))


def padded_pass(rows: Sequence[Sequence[int]], device: torch.device, *, read: int) -> LabelPass:
    """A row each, filled up at the right; the last `read` tokens of every row are read."""
    ids, lengths = right_padded(rows)
    last = torch.arange(len(rows)) * ids.shape[1] + torch.from_numpy(lengths) - 1
    return LabelPass(torch.from_numpy(ids).to(device), _read(last, read).to(device))


def packed_batch(
    rows: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    device: torch.device,
    *,
    prefix_tokens: int,
    dtype: torch.dtype,
) -> LabelBatch:
    """A batch for inference: one row, after `prefix_tokens` that all queries see. `dtype` is the model's."""
    passes = tuple(
        packed_pass(
            [[*row, *suffix] for row in rows],
            device,
            read=len(suffix) + 1,
            prefix_tokens=prefix_tokens,
            dtype=dtype,
        )
        for suffix in _suffixes(tokens)
    )
    return LabelBatch(passes, tuple(tokens))


def packed_pass(
    rows: Sequence[Sequence[int]], device: torch.device, *, read: int, prefix_tokens: int, dtype: torch.dtype
) -> LabelPass:
    """All rows behind each other, each of which sees the prefix and itself; its last `read` tokens are read."""
    lengths = torch.tensor([len(row) for row in rows])
    ends = lengths.cumsum(0)
    ids = torch.tensor([[token for row in rows for token in row]])
    owner = torch.arange(len(rows)).repeat_interleave(lengths)
    place = torch.arange(ids.shape[1])
    seen = (owner[:, None] == owner) & (place[:, None] >= place)
    mask = torch.zeros(1, 1, len(place), prefix_tokens + len(place), dtype=dtype)
    mask[0, 0, :, prefix_tokens:].masked_fill_(~seen, torch.finfo(dtype).min)
    positions = prefix_tokens + place - (ends - lengths)[owner]
    return LabelPass(
        ids.to(device), _read(ends - 1, read).to(device), mask.to(device), positions[None].to(device)
    )


def _suffixes(tokens: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [()] if all(len(word) == 1 for word in tokens) else [word[:-1] for word in tokens]


def _read(last: Tensor, count: int) -> Tensor:
    """Places of the last `count` tokens of each row, [B, K], from the place of its last one."""
    return last[:, None] - count + 1 + torch.arange(count)
