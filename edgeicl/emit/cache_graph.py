"""The key/value cache in the graph: its type, what attention is told of integers in it, how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeicl.emit.branches import IS_PROMPT, either
from edgeicl.emit.graph import GraphBuilder
from edgeicl.models.anatomy import cache_scale_names

KV = ("key", "value")
CACHE_ZERO = "cache_zero"
"""The code of zero, where keys and values are rounded outside of attention."""
IS_FIRST_PROMPT = "is_first_prompt"
"""Whether several tokens are read, and none before them was, in any row."""
_GROWS, _PLACES = "cache_grows", "cache_places"
_ONE = helper.make_tensor("one", TensorProto.BOOL, [1], [True])
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


def first_prompt(builder: GraphBuilder, heads: int) -> None:
    """Makes `IS_FIRST_PROMPT`, and the places [B, heads, T, 3] of its keys and values in a cache with room.

    A cache without any grows. One that has some, but not enough for the prompt, is left to attention.
    """
    node, constant = builder.node, builder.constant
    any_cache = "past_key_values.0.key"
    node("Shape", [any_cache], ["cache_room"], start=2, end=3)  # [1]
    node("Equal", ["cache_room", constant("no_room", [0])], [_GROWS])
    node("GreaterOrEqual", ["cache_room", "step_tokens"], ["cache_has_room"])
    node("Or", [_GROWS, "cache_has_room"], ["cache_takes_all"])
    node("Equal", ["total", "step_tokens"], ["all_are_new"])
    node("And", ["all_are_new", "cache_takes_all"], ["is_first"])
    node("And", ["is_first", IS_PROMPT], [IS_FIRST_PROMPT])

    node("Shape", [any_cache], ["cache_rows"], start=0, end=1)  # [1]
    size = ["cache_rows", constant("cache_heads", [heads]), "step_tokens"]
    node("Concat", size, ["new_shape"], axis=0)
    node("ConstantOfShape", ["new_shape"], ["new_ones"], value=_ONE)
    node("NonZero", ["new_ones"], ["new_indices"])  # [3, B * heads * T]
    node("Transpose", ["new_indices"], ["new_rows"])
    node("Concat", [*size, constant("index_width", [3])], ["places_shape"], axis=0)
    node("Reshape", ["new_rows", "places_shape"], [_PLACES])


def rounded_cache(
    builder: GraphBuilder, numbers: Sequence[str], scales: Sequence[str], past: Sequence[str],
    present: Sequence[str],
) -> None:  # fmt: skip
    """Keys and values of a first prompt as integers of 8 bits, from its `numbers` [B, heads, T, head size].

    Only they are written where the runtime has past and present in one buffer.
    """
    node, constant = builder.node, builder.constant
    one, zero = constant("cache_step", 1.0, np.float32), constant(CACHE_ZERO, 0, np.int8)
    for exact, scale, name in zip(numbers, scales, present, strict=True):
        node("Div", [exact, scale], [f"{name}.levels"])
        node("QuantizeLinear", [f"{name}.levels", one, zero], [f"{name}.new"])
    made = dict.fromkeys(present, int(TensorProto.INT8))

    def alone() -> dict[str, int]:
        for name in present:
            node("Identity", [f"{name}.new"], [name])
        return made

    def in_place() -> dict[str, int]:
        for before, name in zip(past, present, strict=True):
            node("ScatterND", [before, _PLACES, f"{name}.new"], [name])
        return made

    either(builder, _GROWS, grown=alone, written=in_place)


def _broadcast(builder: GraphBuilder, name: str) -> NDArray[np.float32]:
    """Scales [heads, head size] in the shape in which attention reads them."""
    return builder.weights.tensor(name)[None, :, None, :]
