"""The key/value cache in the graph: its type, what attention is told of integers in it, how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgeicl.emit.graph import GraphBuilder
from edgeicl.models.anatomy import cache_scale_names

KV = ("key", "value")
CACHE_ZERO = "cache_zero"
"""The code of zero, where keys and values are rounded outside of attention."""
_TYPES = {32: TensorProto.FLOAT, 16: TensorProto.FLOAT16, 8: TensorProto.INT8}
# Inputs of GroupQueryAttention before the scales: tables of cosines and sines, and three not used here.
_BEFORE_SCALES = 5


def cache_type(builder: GraphBuilder) -> int:
    """ONNX's type of a key or a value."""
    return int(_TYPES[builder.weights.plan.cache_bits])


def cache_scales(builder: GraphBuilder, layer: int) -> tuple[Sequence[str], dict[str, Any]]:
    """Scales of the layer's keys and values, [1, heads, 1, head size], and what attention is told of them.

    Both are empty where the cache holds no integers.
    """
    if builder.weights.plan.cache_bits != 8:
        return (), {}
    names = cache_scale_names(layer)
    for name in names:
        heads, head_size = builder.weights.shape(name)
        if not builder.data.has(name):
            make = partial(_broadcast, builder, name)
            builder.data.add(name, (1, heads, 1, head_size), np.float32, make)
    kinds = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    return names, kinds


def with_scales(tables: Sequence[str], scales: Sequence[str]) -> list[str]:
    """Inputs of attention from its `tables` on."""
    return [*tables, *([""] * (_BEFORE_SCALES - len(tables)) if scales else []), *scales]


def rounded_cache(builder: GraphBuilder, numbers: str, scales: str, past: str, present: str) -> str:
    """The cache `present` of a first prompt: its `numbers` [B, heads, T, head size] as integers of 8 bits.

    What is behind them in `past`, the buffer that the runtime may have both in, stays as it was.
    """
    node, constant = builder.node, builder.constant
    one = constant("cache_step", 1.0, np.float32)
    node("Div", [numbers, scales], [f"{present}.levels"])
    node("QuantizeLinear", [f"{present}.levels", one, constant(CACHE_ZERO, 0, np.int8)], [f"{present}.new"])
    end, axis = constant("cache_end", [np.iinfo(np.int64).max]), constant("cache_axis", [2])
    node("Slice", [past, "step_tokens", end, axis], [f"{present}.rest"])
    return node("Concat", [f"{present}.new", f"{present}.rest"], [present], axis=2)


def _broadcast(builder: GraphBuilder, name: str) -> NDArray[np.float32]:
    """Scales [heads, head size] in the shape in which attention reads them."""
    return builder.weights.tensor(name)[None, :, None, :]
