"""Log-probabilities of labels, read at the last token of each query and nowhere else.

The head is applied to the hidden states of label positions only (and, for verbalizers of one token, to its
rows of these tokens only).

Notation: B queries, L labels, K tokens of a label's word, V vocabulary; R rows of T tokens in a pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeicl.distill.label_batch import LabelBatch, LabelPass
from edgeicl.distill.prefix_cache import Prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Score = Literal["sum", "mean"]

Over = Literal["verbalizers", "words", "vocabulary"]
"""What log-probabilities are over.

verbalizers: [B, L], renormalized over the labels. words: [B, L], of each label's words among all texts, so
rows sum to less than 1. vocabulary: [B, V], of the first label token.
"""


class LabelReader(torch.nn.Module):
    """A causal language model seen as a classifier; `score` is what `Task.score` says."""

    def __init__(self, model: PreTrainedModel, *, score: Score = "sum") -> None:
        super().__init__()
        self.model = model
        self.score = score

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def forward(self, batch: LabelBatch, over: Over, prefix: Prefix | None = None) -> Tensor:
        """Log-probabilities in float32: [B, V] for the vocabulary, else [B, L]."""
        first = batch.passes[0]
        if over == "vocabulary":
            return self.logits(first, prefix)[:, 0].log_softmax(-1)
        if batch.one_pass:
            rows = torch.tensor([token for (token,) in batch.tokens], device=self.device)
            if over == "verbalizers":
                return self.logits(first, prefix, rows)[:, 0].log_softmax(-1)
            return self.logits(first, prefix)[:, 0].log_softmax(-1)[:, rows]
        words = torch.stack(
            [self._word(one, word, prefix) for one, word in zip(batch.passes, batch.tokens, strict=True)],
            dim=-1,
        )
        if over == "words":
            return words
        if self.score == "mean":
            words = words / torch.tensor([len(word) for word in batch.tokens], device=self.device)
        return words.log_softmax(-1)

    def _word(self, one: LabelPass, word: tuple[int, ...], prefix: Prefix | None) -> Tensor:
        """Sum of the log-probabilities of one label's tokens, [B]."""
        steps = self.logits(one, prefix).log_softmax(-1)
        tokens = torch.tensor(word, device=self.device).expand(len(steps), -1)
        return steps.gather(-1, tokens[..., None])[..., 0].sum(-1)

    def logits(self, one: LabelPass, prefix: Prefix | None, rows: Tensor | None = None) -> Tensor:
        """Logits [B, K, V], or [B, K, rows], where the pass is read."""
        cache = prefix.for_batch(len(one.ids)) if prefix else None
        hidden = self.model.base_model(
            input_ids=one.ids,
            attention_mask=one.attention_mask,
            position_ids=one.position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        read = hidden.flatten(0, 1).index_select(0, one.read.flatten()).unflatten(0, one.read.shape)
        head = self.model.get_output_embeddings()
        if rows is None:
            logits: Tensor = head(read)
        else:
            logits = F.linear(read, head.weight[rows], None if head.bias is None else head.bias[rows])
        return logits.float()
