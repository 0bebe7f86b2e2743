"""Attention to a prompt with all scores in memory at once, where the runtime would go through them in tiles.

onnxruntime's tiles (flash attention: Dao et al. 2022) spare memory; on some processors they take longer than
the two products over all tokens that they stand for. It does without them where attention has what they can't
do, such as a sink: one more score for every query. Here the sink's share of each query is zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeicl.emit.branches import TOKEN
from edgeicl.emit.graph import GraphBuilder

_NO_SHARE = -1e30  # e to the power of it is zero, and it is no infinity to compute with
_BEFORE_SINK = 4  # inputs of GroupQueryAttention: tables of cosines and sines, positions, and a bias


def without_tiles(builder: GraphBuilder, heads: int, tables: Sequence[str]) -> list[str]:
    """Inputs of attention from its `tables` on, with a sink where the plan wants all scores at once."""
    if builder.weights.plan.prompt_attention == "tiled" or builder.branch == TOKEN:
        return list(tables)
    sink = builder.constant("no_sink", np.full(heads, _NO_SHARE), np.float32)
    return [*tables, *[""] * (_BEFORE_SINK - len(tables)), sink]
