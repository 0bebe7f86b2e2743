"""The key/value cache in the graph: its type, and what attention is told of integers in it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgeicl.emit.graph import GraphBuilder
from edgeicl.models.anatomy import cache_scale_names

_TYPES = {32: TensorProto.FLOAT, 16: TensorProto.FLOAT16, 8: TensorProto.INT8}
# Inputs of GroupQueryAttention before the scales: tables of cosines and sines, and three not used here.
_BEFORE_SCALES = 5


def cache_type(builder: GraphBuilder) -> int:
    """ONNX's type of a key or a value."""
    return int(_TYPES[builder.weights.plan.cache_bits])


def cache_scales(builder: GraphBuilder, layer: int, tables: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Inputs of attention from its `tables` on, and the attributes that go with them.

    An 8-bit cache has a scale for every channel, [1, heads, 1, head size] for keys and for values.
    """
    if builder.weights.plan.cache_bits != 8:
        return tables, {}
    names = cache_scale_names(layer)
    for name in names:
        heads, head_size = builder.weights.shape(name)
        make = partial(_broadcast, builder, name)
        builder.data.add(name, (1, heads, 1, head_size), np.float32, make)
    unused = [""] * (_BEFORE_SCALES - len(tables))
    kinds = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    return [*tables, *unused, *names], kinds


def _broadcast(builder: GraphBuilder, name: str) -> NDArray[np.float32]:
    """Scales [heads, head size] in the shape in which attention reads them."""
    return builder.weights.tensor(name)[None, :, None, :]
