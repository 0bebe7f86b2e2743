"""Label scores of many queries, with or without demonstrations before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edgeicl.distill.label_reader import LabelReader, Over, label_batch
from edgeicl.distill.prefix_cache import encode_prefix
from edgeicl.errors import DataError

# Larger batches gain nothing on a CPU (they leave its cache); these bounds also keep a large model's
# memory for keys and values in hand.
_CACHE_BYTES = 1 << 28
_BATCH_TOKENS = 4096


@torch.inference_mode()
def score_queries(
    reader: LabelReader,
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    *,
    before: Sequence[int],
    over: Over = "verbalizers",
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Log-probabilities [N, L] (or [N, V] over the vocabulary) of `queries`, in their order.

    `before` are the tokens that stand before each query: the leading tokens, or a demonstration set, whose
    keys and values are computed once. Queries of similar length share a batch.

    Raises:
        DataError: the longest prompt has more tokens than the model reads.
    """
    longest = max(map(len, queries)) + max(map(len, tokens)) - 1
    check_fits(reader, len(before) + longest)
    prefix = encode_prefix(reader.model, before) if len(before) > 1 else None
    rows = [list(query) if prefix else [*before, *query] for query in queries]
    per_batch = _rows_per_batch(reader, len(before), longest)
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]), index))
    scores: NDArray[np.float32] | None = None
    for start in range(0, len(order), per_batch):
        chosen = order[start : start + per_batch]
        batch = label_batch([rows[index] for index in chosen], tokens, reader.device)
        result = reader(batch, over, prefix).cpu().numpy()
        if scores is None:
            scores = np.empty((len(rows), result.shape[1]), dtype=np.float32)
        scores[chosen] = result
        advance(len(chosen))
    assert scores is not None
    return scores


def fits(reader: LabelReader, prompt_tokens: int) -> bool:
    """Whether the model reads that many tokens at once."""
    return bool(prompt_tokens <= reader.model.config.max_position_embeddings)


def check_fits(reader: LabelReader, prompt_tokens: int) -> None:
    """DataError unless `fits`."""
    if not fits(reader, prompt_tokens):
        raise DataError(
            f"the longest prompt has {prompt_tokens:,} tokens; {reader.model.config.name_or_path} reads "
            f"{reader.model.config.max_position_embeddings:,}",
            next_step="lower distill.demonstrations.count, or leave the longest examples out of the data",
        )


def _rows_per_batch(reader: LabelReader, prefix_tokens: int, longest: int) -> int:
    config = reader.model.config
    cache_bytes = 2 * config.num_hidden_layers * config.hidden_size * reader.model.dtype.itemsize
    by_memory = _CACHE_BYTES // (cache_bytes * (prefix_tokens + longest))
    return int(max(1, min(by_memory, _BATCH_TOKENS // longest)))
