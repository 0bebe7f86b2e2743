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

from edgeicl.tasks.prompt import right_padded


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
    passes = []
    for suffix in _suffixes(tokens):
        ids, lengths = right_padded([[*row, *suffix] for row in rows])
        last = torch.arange(len(rows)) * ids.shape[1] + torch.from_numpy(lengths) - 1
        passes.append(LabelPass(torch.from_numpy(ids).to(device), _read(last, len(suffix)).to(device)))
    return LabelBatch(tuple(passes), tuple(tokens))


def packed_batch(
    rows: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    device: torch.device,
    *,
    prefix_tokens: int,
    dtype: torch.dtype,
) -> LabelBatch:
    """A batch for inference: one row, after `prefix_tokens` that all queries see. `dtype` is the model's."""
    passes = []
    for suffix in _suffixes(tokens):
        lengths = torch.tensor([len(row) + len(suffix) for row in rows])
        ends = lengths.cumsum(0)
        ids = torch.tensor([[token for row in rows for token in (*row, *suffix)]])
        owner = torch.arange(len(rows)).repeat_interleave(lengths)
        place = torch.arange(ids.shape[1])
        seen = (owner[:, None] == owner) & (place[:, None] >= place)
        mask = torch.zeros(1, 1, len(place), prefix_tokens + len(place), dtype=dtype)
        mask[0, 0, :, prefix_tokens:].masked_fill_(~seen, torch.finfo(dtype).min)
        positions = prefix_tokens + place - (ends - lengths)[owner]
        passes.append(
            LabelPass(
                ids.to(device),
                _read(ends - 1, len(suffix)).to(device),
                mask.to(device),
                positions[None].to(device),
            )
        )
    return LabelBatch(tuple(passes), tuple(tokens))


def _suffixes(tokens: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [()] if all(len(word) == 1 for word in tokens) else [word[:-1] for word in tokens]


def _read(last: Tensor, suffix_tokens: int) -> Tensor:
    """Places of the tokens before each label token, [B, K], from the place of each row's last token."""
    return last[:, None] - suffix_tokens + torch.arange(suffix_tokens + 1)
