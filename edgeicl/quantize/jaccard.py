"""LSAQ's importance of decoder layers (arXiv 2412.18135): does a layer change what its state would say?

For each layer, A are the top-k tokens that the head projects from the layer's input and B those from its
output; J = |A ∩ B| / |A ∪ B|. A low J means that the layer does much: it is important and gets more bits.

The paper leaves open, and is an argument here: whether the final norm precedes the head (default: yes, as in
the model itself), k, and whether sets are taken over a whole sequence (default: the union over its positions;
then J is averaged over sequences) or over each position.

J rates whole decoder blocks, so the four groups of a block share one format, as in the paper. What LSAQ says
of the order of blocks becomes bytes through

    loss(block, format) = (1 - J) * mean over its groups of |W - Q(W)|² / |W|²

Blocks are alike in shape and nearly alike in relative error, so the best allocation gives the higher bits to
the blocks of lower J, which is LSAQ's rule, with as many of them as the budget allows. The embedding, which
the paper doesn't rate, has the highest possible importance, 1: every token passes through it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.models.anatomy import WeightGroup
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.specs.quant_plan import Format

Floats = NDArray[np.float32]

_ROWS_AT_ONCE = 256  # of logits: 51 MB at OPT's vocabulary


def layer_similarities(
    decoder: CalibratedDecoder,
    *,
    top_k: int,
    final_norm: bool = True,
    sets_over: Literal["sequence", "position"] = "sequence",
) -> tuple[float, ...]:
    """J of every decoder layer, in 0..1, mean over the calibration sequences."""
    below = decoder.embed()
    tokens_below = _top_tokens(decoder, below, top_k, final_norm)
    found = []
    for index in range(decoder.layers):
        below = decoder.layer(index, below)
        tokens = _top_tokens(decoder, below, top_k, final_norm)
        found.append(_mean_similarity(tokens_below, tokens, decoder.lengths, sets_over))
        tokens_below = tokens
    return tuple(found)


def jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    """|A ∩ B| / |A ∪ B|; 1 for two empty sets, which are equal."""
    union = len(first | second)
    return len(first & second) / union if union else 1.0


def importance(group: WeightGroup, similarities: Sequence[float]) -> float:
    """1 - J of the group's layer; 1 for the embedding."""
    return 1.0 if group.layer is None else 1.0 - similarities[group.layer]


def relative_error(matrix: Floats, format_: Format) -> float:
    """|W - Q(W)|² / |W|², the share of the matrix's energy that the format gets wrong; 0 for a zero matrix."""
    energy = float(np.square(matrix, dtype=np.float64).sum())
    if format_.bits == 32 or energy == 0:
        return 0.0
    return float(np.square(matrix - stored_values(matrix, format_), dtype=np.float64).sum()) / energy


def jaccard_losses(
    groups: Iterable[WeightGroup],
    matrices: Mapping[str, Floats],
    format_: Format,
    similarities: Sequence[float],
    *,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, float]:
    """Group -> importance times relative error in the format; `advance(1)` after each.

    The four groups of a block count a quarter each, so that their sum is the block's loss.
    """
    found = {}
    for group in groups:
        share = 1.0 if group.layer is None else 0.25
        found[group.name] = (
            share * importance(group, similarities) * relative_error(matrices[group.name], format_)
        )
        advance(1)
    return found


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
