"""Log-probabilities of labels, read at the last token of each query and nowhere else.

No attention mask is needed: padding stands at the right, and a causal model never looks to the right.
The head is applied to the hidden states of label positions only (and, for verbalizers of one token, to its
rows of these tokens only).

Notation: B queries, T tokens of the longest, L labels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeicl.distill.prefix_cache import Prefix
from edgeicl.tasks.prompt import right_padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Over = Literal["verbalizers", "words", "vocabulary"]
"""What log-probabilities are over.

verbalizers: [B, L], renormalized over the labels. words: [B, L], of each label's words among all texts, so
rows sum to less than 1. vocabulary: [B, V], of the first label token.
"""


@dataclass(frozen=True)
class LabelBatch:
    """Queries, padded at the right, with what reading their labels takes.

    Verbalizers of one token share one pass; else there is one pass a label, whose rows go on with the
    label's tokens but the last.
    """

    ids: tuple[Tensor, ...]
    last: Tensor
    tokens: tuple[tuple[int, ...], ...]


def label_batch(
    rows: Sequence[Sequence[int]], tokens: Sequence[tuple[int, ...]], device: torch.device
) -> LabelBatch:
    """A batch of `rows`; `tokens` holds the label words' tokens, in the order of the labels."""
    one_pass = all(len(word) == 1 for word in tokens)
    suffixes = [()] if one_pass else [word[:-1] for word in tokens]
    passes = [right_padded([[*row, *suffix] for row in rows])[0] for suffix in suffixes]
    last = torch.tensor([len(row) - 1 for row in rows], device=device)
    return LabelBatch(tuple(torch.from_numpy(ids).to(device) for ids in passes), last, tuple(tokens))


class LabelReader(torch.nn.Module):
    """A causal language model seen as a classifier."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def forward(self, batch: LabelBatch, over: Over, prefix: Prefix | None = None) -> Tensor:
        """Log-probabilities in float32: [B, V] for the vocabulary, else [B, L]."""
        if over == "vocabulary":
            return self._logits(batch.ids[0], batch.last[:, None], prefix)[:, 0].log_softmax(-1)
        if len(batch.ids) == len(batch.tokens):
            words = torch.stack(
                [self._word(batch, label, prefix) for label in range(len(batch.tokens))], dim=-1
            )
        else:
            rows = torch.tensor([token for (token,) in batch.tokens], device=batch.last.device)
            if over == "verbalizers":
                return self._logits(batch.ids[0], batch.last[:, None], prefix, rows)[:, 0].log_softmax(-1)
            words = self._logits(batch.ids[0], batch.last[:, None], prefix)[:, 0].log_softmax(-1)[:, rows]
        return words.log_softmax(-1) if over == "verbalizers" else words

    def _word(self, batch: LabelBatch, label: int, prefix: Prefix | None) -> Tensor:
        """Sum of the log-probabilities of one label's tokens, [B]."""
        tokens = torch.tensor(batch.tokens[label], device=batch.last.device)
        positions = batch.last[:, None] + torch.arange(len(tokens), device=batch.last.device)
        steps = self._logits(batch.ids[label], positions, prefix).log_softmax(-1)
        return steps.gather(-1, tokens.expand(len(steps), -1)[..., None])[..., 0].sum(-1)

    def _logits(
        self, ids: Tensor, positions: Tensor, prefix: Prefix | None, rows: Tensor | None = None
    ) -> Tensor:
        """Logits [B, K, V], or [B, K, rows], at `positions` [B, K] of `ids`."""
        cache = prefix.for_batch(len(ids)) if prefix else None
        hidden = self.model.base_model(
            input_ids=ids, past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state
        read = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
        head = self.model.get_output_embeddings()
        if rows is None:
            logits: Tensor = head(read)
        else:
            logits = F.linear(read, head.weight[rows], None if head.bias is None else head.bias[rows])
        return logits.float()
