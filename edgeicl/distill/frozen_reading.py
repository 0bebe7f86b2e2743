"""What a frozen language model expects after vectors, and after the tokens that they stand for.

Notation: S demonstration sets, Q queries after each, R = S x Q rows, T tokens of the longest query, N places
that are read, V vocabulary, l vectors, H width of token embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from edgeicl.distill.prefix_cache import encode_prefix
from edgeicl.numerics.padding import right_padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Places = Literal["query", "label"]
"""Where distributions are compared: at every token of query and label words, or where the label is read."""


@dataclass(frozen=True)
class Query:
    """Tokens after a demonstration set, and the label words that follow them; a plain text has none."""

    tokens: tuple[int, ...]
    answer: tuple[int, ...] = ()

    @property
    def read(self) -> tuple[int, ...]:
        """All that the model is given: the last label token is only ever expected."""
        return (*self.tokens, *self.answer[:-1])


@dataclass(frozen=True)
class QueryBatch:
    """R queries: ids [R, T]; of each of the N places read its row [N], column [N], and the expected token.

    `expected` [N] is the label's next token at the places where the label is read, and -1 elsewhere.
    """

    ids: Tensor
    row: Tensor
    column: Tensor
    expected: Tensor

    @property
    def rows(self) -> int:
        """R."""
        return len(self.ids)


def query_batch(queries: Sequence[Query], places: Places, device: torch.device) -> QueryBatch:
    """The batch of `queries`, padded on the right: a causal model never looks there."""
    ids, _ = right_padded([query.read for query in queries])
    read: list[tuple[int, int, int]] = []
    for row, query in enumerate(queries):
        first = len(query.read) - len(query.answer)
        if places == "query":
            read += [(row, column, -1) for column in range(first)]
        read += [(row, first + place, token) for place, token in enumerate(query.answer)]
    rows, columns, expected = torch.tensor(read, device=device).unbind(1)
    return QueryBatch(torch.from_numpy(ids).to(device), rows, columns, expected)


def after_vectors(model: PreTrainedModel, vectors: Tensor, batch: QueryBatch) -> Tensor:
    """Log-probabilities [N, V] of `batch`, whose rows follow the vectors [S, l, H], Q rows each.

    Vectors take the positions from 0 on in the place of token embeddings, as any decoder of transformers
    allows; gradients reach them.
    """
    embeddings = model.get_input_embeddings()(batch.ids)
    before = vectors.to(embeddings.dtype).repeat_interleave(batch.rows // len(vectors), dim=0)
    hidden = model.base_model(
        inputs_embeds=torch.cat([before, embeddings], dim=1), use_cache=False
    ).last_hidden_state[:, before.shape[1] :]
    return _log_probabilities(model, hidden, batch)


@torch.no_grad()
def after_tokens(model: PreTrainedModel, contexts: Sequence[Sequence[int]], batch: QueryBatch) -> Tensor:
    """Log-probabilities [N, V] of `batch`, whose rows follow the S contexts, Q rows each; without gradients."""
    of_each = batch.rows // len(contexts)
    hidden = []
    for context, ids in zip(contexts, batch.ids.view(len(contexts), of_each, -1), strict=True):
        cache = encode_prefix(model, context).for_batch(of_each)
        passed = model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        hidden.append(passed.last_hidden_state)
    return _log_probabilities(model, torch.cat(hidden), batch)


def _log_probabilities(model: PreTrainedModel, hidden: Tensor, batch: QueryBatch) -> Tensor:
    logits: Tensor = model.get_output_embeddings()(hidden[batch.row, batch.column])
    return logits.float().log_softmax(-1)
