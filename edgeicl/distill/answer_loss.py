"""What pretraining minimizes: cross-entropy at answers, and less of it on all other tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from edgeicl.distill.episodes import Texts


def answer_loss(
    model: nn.Module,
    texts: Texts,
    language_model_weight: float,
    first_positions: Sequence[int] | None = None,
) -> torch.Tensor:
    """Mean cross-entropy at answers plus a weighted mean over all other tokens, in nats; scalar.

    Texts without an answer are plain text, and count with weight 1. `first_positions` [B] are those of each
    text's first token; 0 unless given.
    """
    device = next(model.parameters()).device
    tokens = torch.from_numpy(texts.tokens).to(device)
    positions = {}
    if first_positions is not None:
        places = torch.arange(tokens.shape[1])[None] + torch.tensor(first_positions)[:, None]
        positions = {"position_ids": places.to(device)}
    logits = model(input_ids=tokens, use_cache=False, **positions).logits
    losses = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none"
    ).view(tokens.shape[0], -1)
    at_answer = torch.from_numpy(texts.answer_mask[:, :-1]).to(device)
    elsewhere = torch.from_numpy(texts.token_mask[:, 1:]).to(device) & ~at_answer
    if not texts.answer_mask.any():
        return losses[elsewhere].mean()
    return losses[at_answer].mean() + language_model_weight * losses[elsewhere].mean()
