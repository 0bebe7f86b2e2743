"""The channel way to ask a model: how likely the text is after each label, instead of the label after the text.

Source: MetaICL (Min et al., 2022, arXiv 2110.15943) and, for the name, arXiv 2108.04106. By Bayes' rule with
labels equally likely, the scores renormalized over labels are the labels' probabilities given the text.

Notation: N queries, L labels, T tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from edgeicl.distill.label_batch import packed_batch
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.prefix_cache import encode_prefix
from edgeicl.distill.scoring import ScoreSlices, check_fits, pack_tokens, packs, score_slices
from edgeicl.tasks.prompt import PromptEncoder

_ONE_TOKEN = ((0,),)
"""Any word of one token: it makes a batch of one pass, whose ids are the rows as they are."""


def slices_scorer(encoder: PromptEncoder) -> ScoreSlices:
    """How the task's encoder asks: directly, or through the channel."""
    return channel_slices if encoder.asks_channel else score_slices


@torch.inference_mode()
def channel_slices(
    reader: LabelReader,
    queries: Sequence[Sequence[int]],
    words: Sequence[Sequence[int]],
    slices: Sequence[tuple[int, int]],
    *,
    before: Sequence[int],
    over: Over = "verbalizers",
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[NDArray[np.float32]]:
    """Log-probabilities [N, L] of labels, from those of each query's tokens after each label's word.

    For each slice (start, stop) of `queries`. `before` are the tokens before the word, whose keys and values
    are computed once for each label and slice; `reader.score` says whether a query's tokens are added up or
    averaged.

    Raises:
        DataError: the longest prompt has more tokens than the model reads.
    """
    assert over == "verbalizers"  # the schema sees to it
    check_fits(reader, len(before) + max(map(len, words)) + max(map(len, queries)))
    for start, stop in slices:
        asked = queries[start:stop]
        scores = np.stack([_after_word(reader, asked, [*before, *word]) for word in words], axis=1)
        if reader.score == "mean":
            scores /= np.array([[len(query)] for query in asked])
        advance(len(asked))
        yield torch.from_numpy(scores).log_softmax(-1).float().numpy()


def _after_word(
    reader: LabelReader, queries: Sequence[Sequence[int]], before: Sequence[int]
) -> NDArray[np.float64]:
    """Log-probability [N] of all tokens of each query after `before`."""
    # The last token predicts the query's first, so it belongs to the rows.
    *first, last = before
    prefix = encode_prefix(reader.model, first) if first else None
    scores = []
    for pack in packs([[last, *query] for query in queries], pack_tokens(reader.device.type)):
        tokens = prefix.tokens if prefix else 0
        batch = packed_batch(pack, _ONE_TOKEN, reader.device, prefix_tokens=tokens, dtype=reader.model.dtype)
        (one,) = batch.passes
        everywhere = torch.arange(one.ids.shape[1], device=reader.device)[None]
        steps = reader(replace(one, read=everywhere), prefix=prefix)[0]  # [T, V]
        following = steps[:-1].gather(-1, one.ids[0, 1:, None])[:, 0].double().cpu().numpy()
        ends = np.cumsum([len(row) for row in pack])
        scores += [following[end - len(row) : end - 1].sum() for row, end in zip(pack, ends, strict=True)]
    return np.array(scores)
