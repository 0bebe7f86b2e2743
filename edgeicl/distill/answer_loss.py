"""What pretraining minimizes: cross-entropy at answers, and less of it on all other tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from edgeicl.distill.episodes import Texts


def answer_loss(
    model: PreTrainedModel,
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
    hidden = model.base_model(input_ids=tokens, use_cache=False, **positions).last_hidden_state[:, :-1]
    coming = tokens[:, 1:]
    at_answer = torch.from_numpy(texts.answer_mask[:, :-1]).to(device)
    elsewhere = torch.from_numpy(texts.token_mask[:, 1:]).to(device) & ~at_answer
    if not texts.answer_mask.any():
        return _mean_loss(model, hidden, coming, elsewhere)
    loss = _mean_loss(model, hidden, coming, at_answer)
    if language_model_weight:
        loss = loss + language_model_weight * _mean_loss(model, hidden, coming, elsewhere)
    return loss


def _mean_loss(
    model: PreTrainedModel, hidden: torch.Tensor, coming: torch.Tensor, where: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy of the `coming` tokens [B, T] where the mask is set: the head reads nothing else."""
    logits = model.get_output_embeddings()(hidden[where])
    return functional.cross_entropy(logits.float(), coming[where])
