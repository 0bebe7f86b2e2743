"""Log-probabilities of labels, read at the last token of each query and nowhere else.

The head is applied to the hidden states of label positions only (and, for verbalizers of one token, with its
rows of these tokens only).

Notation: B queries, L labels, K tokens of a label's word, V vocabulary; R rows of T tokens in a pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
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


class LabelReader(nn.Module):
    """A causal language model seen as a classifier; `score` is what `Task.score` says."""

    def __init__(self, model: PreTrainedModel, *, score: Score = "sum") -> None:
        super().__init__()
        self.model = model
        self.score = score

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def is_sharded(self) -> bool:
        """Whether this process has a part of the weights only, so that all must run it at the same time."""
        if not torch.distributed.is_initialized():
            return False
        from torch.distributed.tensor import DTensor  # a second to import, which one process need not spend

        return any(isinstance(parameter, DTensor) for parameter in self.model.parameters())

    def forward(
        self, batch: LabelBatch | LabelPass, over: Over = "vocabulary", prefix: Prefix | None = None
    ) -> Tensor:
        """Log-probabilities in float32: [B, V] for the vocabulary, else [B, L].

        Of a pass, over the vocabulary, those of all its K places: [B, K, V].
        """
        if isinstance(batch, LabelPass):
            return self._logits(batch, prefix).log_softmax(-1)
        first = batch.passes[0]
        if over == "vocabulary":
            return self._logits(first, prefix)[:, 0].log_softmax(-1)
        if batch.one_pass:
            rows = torch.tensor([token for (token,) in batch.tokens], device=self.device)
            if over == "verbalizers":
                return self._logits(first, prefix, rows)[:, 0].log_softmax(-1)
            return self._logits(first, prefix)[:, 0].log_softmax(-1)[:, rows]
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
        steps = self._logits(one, prefix).log_softmax(-1)
        tokens = torch.tensor(word, device=self.device).expand(len(steps), -1)
        return steps.gather(-1, tokens[..., None])[..., 0].sum(-1)

    def _logits(self, one: LabelPass, prefix: Prefix | None, rows: Tensor | None = None) -> Tensor:
        """Logits [B, K, V], or [B, K, rows], where the pass is read."""
        hidden = self._hidden_states(one, prefix)
        read = hidden.flatten(0, 1)[one.read]
        head = self.model.get_output_embeddings()
        if rows is not None and type(head) is nn.Linear:
            return F.linear(read, head.weight[rows], None if head.bias is None else head.bias[rows]).float()
        # Of a quantized head the weights are packed: it is asked for every word.
        logits: Tensor = head(read).float()
        return logits if rows is None else logits[..., rows]

    def _hidden_states(self, one: LabelPass, prefix: Prefix | None) -> Tensor:
        """Last hidden states of a pass, [R, T, H]."""
        cache = prefix.for_batch(len(one.ids)) if prefix else None
        hidden: Tensor = self.model.base_model(
            input_ids=one.ids,
            attention_mask=one.attention_mask,
            position_ids=one.position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return hidden
