"""Hidden states and attention of prompts, without padding and without what follows a prompt.

Notation: B prompts, T tokens of the longest, H width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.distill.label_batch import LabelBatch, LabelPass, padded_batch
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.prefix_cache import Prefix

_EMBEDDED_AT_ONCE = 64


class StateReader(LabelReader):
    """A label reader that keeps the last hidden states of the first pass of its last call, `hidden`."""

    def forward(
        self, batch: LabelBatch | LabelPass, over: Over = "vocabulary", prefix: Prefix | None = None
    ) -> Tensor:
        self._kept: list[Tensor] = []
        return super().forward(batch, over, prefix)

    @property
    def hidden(self) -> Tensor:
        """[B, T, H]."""
        return self._kept[0]

    def _hidden_states(self, one: LabelPass, prefix: Prefix | None) -> Tensor:
        states = super()._hidden_states(one, prefix)
        self._kept.append(states)
        return states


def all_states(reader: LabelReader, one: LabelPass) -> Any:
    """The decoder's output for a pass, with `hidden_states` and `attentions` of all layers.

    Attention probabilities exist in eager attention only: see `with_attention`.
    """
    return reader.model.base_model(
        input_ids=one.ids, output_hidden_states=True, output_attentions=True, use_cache=False
    )


def with_attention(reader: LabelReader) -> LabelReader:
    """The same reader, whose model computes attention in the plain way that can show its probabilities."""
    reader.model.set_attn_implementation("eager")
    return reader


def prompt_pass(rows: Sequence[Sequence[int]], device: torch.device) -> LabelPass:
    """One pass over prompts alone, without any label's tokens."""
    (one,) = padded_batch(rows, [(0,)], device).passes
    return one


def prompt_mask(one: LabelPass, *, skip: int = 0) -> Tensor:
    """Where the prompts' own tokens are, bool [B, T]; the first `skip` of each are left out."""
    rows, length = one.ids.shape
    last = one.read[:, :1] - torch.arange(rows, device=one.ids.device)[:, None] * length
    places = torch.arange(length, device=one.ids.device)
    return (places <= last) & (places >= skip)


def mean_state(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of `mask` [B, T] of hidden states [B, T, H]: [B, H]."""
    weights = mask.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(1) / weights.sum(1)


@torch.inference_mode()
def embed(
    reader: LabelReader,
    rows: Sequence[Sequence[int]],
    *,
    pooling: Literal["mean", "last_token"],
    skip: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Embeddings [N, H] of prompts: the last hidden states' mean, but for the first `skip`, or the last one."""
    found = []
    for start in range(0, len(rows), _EMBEDDED_AT_ONCE):
        part = rows[start : start + _EMBEDDED_AT_ONCE]
        one = prompt_pass(part, reader.device)
        hidden = reader.model.base_model(input_ids=one.ids, use_cache=False).last_hidden_state
        if pooling == "mean":
            states = mean_state(hidden, prompt_mask(one, skip=skip))
        else:
            states = hidden.flatten(0, 1)[one.read[:, 0]]
        found.append(states.float().cpu().numpy())
        advance(len(part))
    return np.concatenate(found)
