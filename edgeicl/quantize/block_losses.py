"""From the importance of whole decoder blocks to the loss of every group in every format.

Methods that look at a model rather than at what rounding does to it (`jaccard`, `block_influence`,
`weight_outliers`) put blocks into an order. It becomes bytes through

    loss(block, format) = importance * mean over its groups of |W - Q(W)|² / |W|²,   importance in 0..1

Blocks are alike in shape and nearly alike in relative error, so the best allocation gives the higher bits to
the more important blocks, with as many of them as the budget allows. The four groups of a block share one
format. Embedding, head and projections, which none of the methods rates, have the highest possible importance,
1: every token passes through them. Q rounds to nearest whatever the solver: others seek a smaller loss of
something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edgeicl.models.anatomy import WeightGroup
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.specs.quant_plan import Format

Floats = NDArray[np.float32]
_SAMPLE = (64, 1024)  # rows of the largest block that a format may have, some 65,000 weights


def importance(group: WeightGroup, of_blocks: Sequence[float]) -> float:
    """That of the group's block; 1 outside of blocks."""
    return 1.0 if group.layer is None else of_blocks[group.layer]


def relative_error(matrix: Floats, format_: Format) -> float:
    """|W - Q(W)|² / |W|², the share of the matrix's energy that the format gets wrong; 0 for a zero matrix."""
    energy = float(np.square(matrix, dtype=np.float64).sum())
    if format_.bits == 32 or energy == 0:
        return 0.0
    return float(np.square(matrix - stored_values(matrix, format_), dtype=np.float64).sum()) / energy


@cache
def typical_error(format_: Format) -> float:
    """The relative error of normally distributed weights, as trained ones nearly are; within 1 %."""
    return relative_error(typical_numbers(), format_)


def typical_numbers() -> Floats:
    """A sample of the normal distribution, rows by columns."""
    return np.random.default_rng(0).standard_normal(_SAMPLE).astype(np.float32)


def block_loss(group: WeightGroup, of_blocks: Sequence[float], error: float) -> float:
    """Importance times the group's relative `error`.

    The four groups of a block count a quarter each, so that their sum is the block's loss.
    """
    return (1.0 if group.layer is None else 0.25) * importance(group, of_blocks) * error


def block_losses(
    groups: Iterable[WeightGroup],
    matrices: Mapping[str, Floats],
    format_: Format,
    of_blocks: Sequence[float],
    *,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, float]:
    """Group -> `block_loss` in the format; `advance(1)` after each."""
    found = {}
    for group in groups:
        found[group.name] = block_loss(group, of_blocks, relative_error(matrices[group.name], format_))
        advance(1)
    return found
