"""Attention of one layer: a node of the runtime, or, beside a cache of integers, one of two.

The runtime's attention to integers reads back what it has just rounded, with kernels that are made for one
token: a prompt of 128 tokens takes it 1.7 times as long in all as with a cache in fp32 where products are in
integers too, one of 900 tokens 1.7 times wherever. Where prompts are to be fast, those with nothing before
them meet keys and values as they are, and these are rounded for the tokens that follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import TensorProto

from edgeicl.emit.branches import TOKEN, either
from edgeicl.emit.cache_graph import (
    IS_FIRST_PROMPT,
    KV,
    cache_scales,
    cache_type,
    rounded_cache,
    with_scales,
)
from edgeicl.emit.graph import GraphBuilder
from edgeicl.emit.opsets import FUSED
from edgeicl.emit.whole_attention import without_tiles
from edgeicl.models.anatomy import Anatomy


def attention(
    builder: GraphBuilder,
    anatomy: Anatomy,
    layer: int,
    states: Sequence[str],
    tables: Sequence[str],
    rotary: Mapping[str, Any],
) -> str:
    """What the heads find for `states` (queries, keys and values), whose keys and values join the cache.

    `tables` and `rotary` are inputs and attributes by which positions turn queries and keys.
    """
    found = f"layers.{layer}.attended"
    kept = {f"present.{layer}.{part}": cache_type(builder) for part in KV}
    made = {found: TensorProto.FLOAT} | kept

    def node(inputs: Sequence[str], outputs: Sequence[str], **of_cache: Any) -> None:
        builder.node(
            "GroupQueryAttention", inputs, outputs, domain=FUSED,
            num_heads=anatomy.heads, kv_num_heads=anatomy.kv_heads, **rotary,
            scale=anatomy.head_size**-0.5, **of_cache,
        )  # fmt: skip

    lengths = ["seqlens_k", "total_sequence_length"]
    past = [f"past_key_values.{layer}.{part}" for part in KV]
    apart = builder.weights.plan.rounds_after_prompts
    scales, scaled = cache_scales(builder, layer)

    def to_the_cache() -> dict[str, int]:
        rest = [*tables] if apart else without_tiles(builder, anatomy.heads, tables)
        node([*states, *past, *lengths, *with_scales(rest, scales)], [*made], **scaled)
        return made

    def to_the_prompt() -> dict[str, int]:
        exact = [f"{name}.exact" for name in kept]
        rest = without_tiles(builder, anatomy.heads, tables)
        node([*states, "", "", *lengths, *rest], [found, *exact])
        rounded_cache(builder, exact, scales, past, [*kept])
        return made

    if apart and builder.branch != TOKEN:
        either(builder, IS_FIRST_PROMPT, first=to_the_prompt, later=to_the_cache)
    else:
        to_the_cache()
    return found
