"""Texts that a model writes itself: sampled, and the same whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def sample(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], draws: NDArray[Any], *, temperature: float
) -> Tensor:
    """T tokens [B, T] that `model` goes on with after each row.

    `draws` [B, T] are uniform in [0, 1): a token is the first whose cumulative probability is above its draw.
    So a row's tokens depend on its own draws alone, up to rounding.
    """
    from transformers import DynamicCache

    device, longest = model.device, max(map(len, rows))
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache, head = DynamicCache(), model.get_output_embeddings()
    chosen: list[Tensor] = []
    for draw in torch.from_numpy(draws).to(device).unbind(-1):
        hidden = model.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        likelihood = (head(hidden).float() / temperature).softmax(-1)
        below = (likelihood.cumsum(-1, dtype=torch.float64) <= draw[:, None]).sum(-1)
        chosen.append(below.clamp(max=likelihood.shape[-1] - 1))
        ids = chosen[-1][:, None]
        mask = torch.cat([mask, torch.ones_like(ids)], dim=-1)
        positions = positions[:, -1:] + 1
    return torch.stack(chosen, dim=-1)
