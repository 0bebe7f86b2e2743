"""The channel way to ask a model: how likely the text is after each label, instead of the label after the text.

Source: MetaICL (Min et al., 2022, arXiv 2110.15943) and, for the name, arXiv 2108.04106. By Bayes' rule with
labels equally likely, the scores renormalized over labels are the labels' probabilities given the text.

Notation: N queries, L labels, T tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from edgeicl.distill.label_batch import packed_batch
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.prefix_cache import encode_prefix
from edgeicl.distill.scoring import check_fits, packs, score_queries
from edgeicl.tasks.prompt import PromptEncoder

_ONE_TOKEN = ((0,),)
"""Any word of one token: it makes a batch of one pass, whose ids are the rows as they are."""


def score_prompts(
    reader: LabelReader,
    encoder: PromptEncoder,
    queries: Sequence[Sequence[int]],
    *,
    before: Sequence[int],
    over: Over = "verbalizers",
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Log-probabilities of queries, the way that the task's encoder asks: directly, or through the channel."""
    words = list(encoder.tokens.values())
    if encoder.asks_channel:
        return score_channel(reader, queries, words, before=before, advance=advance)
    return score_queries(reader, queries, words, before=before, over=over, advance=advance)


@torch.inference_mode()
def score_channel(
    reader: LabelReader,
    queries: Sequence[Sequence[int]],
    words: Sequence[Sequence[int]],
    *,
    before: Sequence[int],
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Log-probabilities [N, L] of labels, from those of each query's tokens after each label's word.

    `before` are the tokens before the word, whose keys and values are computed once for each label;
    `reader.score` says whether a query's tokens are added up or averaged.

    Raises:
        DataError: the longest prompt has more tokens than the model reads.
    """
    check_fits(reader, len(before) + max(map(len, words)) + max(map(len, queries)))
    scores = np.zeros((len(queries), len(words)))
    told = 0
    for column, word in enumerate(words):
        # The word's last token predicts the query's first, so it belongs to the rows.
        *first, last = (*before, *word)
        rows = [[last, *query] for query in queries]
        prefix = encode_prefix(reader.model, first) if first else None
        done = 0
        for pack in packs(rows, reader.device):
            batch = packed_batch(
                pack,
                _ONE_TOKEN,
                reader.device,
                prefix_tokens=prefix.tokens if prefix else 0,
                dtype=reader.model.dtype,
            )
            (one,) = batch.passes
            everywhere = torch.arange(one.ids.shape[1], device=reader.device)[None]
            logits = reader.logits(replace(one, read=everywhere), prefix)[0]  # [T, V]
            following = logits.log_softmax(-1)[:-1].gather(-1, one.ids[0, 1:, None])[:, 0]
            ends = np.cumsum([len(row) for row in pack])
            values = following.cpu().numpy()
            for row, end in zip(pack, ends, strict=True):
                scores[done, column] = values[end - len(row) : end - 1].sum()
                done += 1
            # A query is done when it was read after every label.
            through = (column * len(queries) + done) // len(words)
            advance(through - told)
            told = through
    if reader.score == "mean":
        scores /= np.array([[len(query)] for query in queries])
    return torch.from_numpy(scores).log_softmax(-1).float().numpy()
