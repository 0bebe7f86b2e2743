"""LSAQ's importance of decoder layers (arXiv 2412.18135): does a layer change what its state would say?

For each layer, A are the top-k tokens that the head projects from the layer's input and B those from its
output; J = |A ∩ B| / |A ∪ B|. A low J means that the layer does much: it is important and gets more bits.

The paper leaves open, and is an argument here: whether the final norm precedes the head (default: yes, as in
the model itself), k, and whether sets are taken over a whole sequence (default: the union over its positions;
then J is averaged over sequences) or over each position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.quantize.decoder import CalibratedDecoder

_ROWS_AT_ONCE = 256  # of logits: 51 MB at OPT's vocabulary


def layer_similarities(
    decoder: CalibratedDecoder,
    *,
    top_k: int,
    final_norm: bool = True,
    sets_over: Literal["sequence", "position"] = "sequence",
    states: Sequence[Tensor] | None = None,
) -> tuple[float, ...]:
    """J of every decoder layer, in 0..1, mean over the calibration sequences.

    `states` are `decoder.layer_inputs()`, if they are known already.
    """
    first, *others = states or decoder.layer_inputs()
    tokens_below = _top_tokens(decoder, first, top_k, final_norm)
    found = []
    for state in others:
        tokens = _top_tokens(decoder, state, top_k, final_norm)
        found.append(_mean_similarity(tokens_below, tokens, decoder.lengths, sets_over))
        tokens_below = tokens
    return tuple(found)


def jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    """|A ∩ B| / |A ∪ B|; 1 for two empty sets, which are equal."""
    union = len(first | second)
    return len(first & second) / union if union else 1.0


def _top_tokens(decoder: CalibratedDecoder, hidden: Tensor, top_k: int, final_norm: bool) -> NDArray[np.int64]:
    """[T, k] ids of the tokens with the largest logits."""
    parts = []
    for rows in torch.split(hidden, _ROWS_AT_ONCE):
        logits = decoder.logits(rows, final_norm=final_norm)
        parts.append(torch.topk(logits, min(top_k, logits.shape[-1]), dim=-1, sorted=False).indices.numpy())
    return np.concatenate(parts)


def _mean_similarity(
    below: NDArray[np.int64], above: NDArray[np.int64], lengths: Sequence[int], sets_over: str
) -> float:
    spans = lengths if sets_over == "sequence" else [1] * len(below)
    found = []
    start = 0
    for length in spans:
        part = slice(start, start + length)
        found.append(jaccard(frozenset(below[part].ravel().tolist()), frozenset(above[part].ravel().tolist())))
        start += length
    return float(np.mean(found))
