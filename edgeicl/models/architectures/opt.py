"""OPT (Zhang et al., arXiv 2205.01068): learned positions, LayerNorm, ReLU, a tied head.

Norms stand before each block and after the last; in the 350M model they stand after each block, and its
embedding is narrower than its residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeicl.models.anatomy import EMBEDDING, PROJECT_IN, PROJECT_OUT, Anatomy, WeightGroup, weight_group
from edgeicl.models.architectures.checked_config import (
    HEAD_SIZE_MULTIPLE,
    checked,
    head_size_problem,
    special_ids,
)

DECODER = "model.decoder"
POSITION_OFFSET = 2
"""Rows that the position table starts with and no token uses."""

# What edgeicl needs of a configuration, with the value that config.json means by leaving a key out.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "ffn_dim": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 50272,
    "max_position_embeddings": 2048,
    "do_layer_norm_before": True,
    "_remove_final_layer_norm": False,
    "layer_norm_elementwise_affine": True,
    "enable_bias": True,
    "activation_function": "relu",
    "tie_word_embeddings": True,
}
_REQUIRED: dict[str, Any] = {
    "layer_norm_elementwise_affine": True,
    "activation_function": "relu",
    "tie_word_embeddings": True,
}


def anatomy(config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of an OPT model.

    Raises:
        DataError: a configuration that edgeicl can't compile; names all that is unsupported.
    """
    sizes = {**_DEFAULTS, **config}
    hidden, heads = int(sizes["hidden_size"]), int(sizes["num_attention_heads"])
    problem = head_size_problem(hidden, heads, HEAD_SIZE_MULTIPLE)
    full = checked(config, _DEFAULTS, _REQUIRED, [problem] if problem else [])
    layers = int(full["num_hidden_layers"])
    positions = int(full["max_position_embeddings"])
    return Anatomy(
        model_type="opt",
        causal_lm="OPTForCausalLM",
        config=full,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_size=hidden // heads,
        positions=positions,
        vocabulary=int(full["vocab_size"]),
        groups=_groups(full),
        others=_others(layers, hidden, positions, last_norm=has_last_norm(full)),
        special_ids=special_ids(full, {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}),
        prefix="model.",
        undeployed=POSITION_OFFSET * hidden,
    )


def has_last_norm(full: Mapping[str, Any]) -> bool:
    """Whether a norm stands before the head."""
    return bool(full["do_layer_norm_before"]) and not full["_remove_final_layer_norm"]


def _groups(full: Mapping[str, Any]) -> tuple[WeightGroup, ...]:
    hidden, inner, bias = int(full["hidden_size"]), int(full["ffn_dim"]), bool(full["enable_bias"])
    groups: list[WeightGroup] = []
    for layer in range(int(full["num_hidden_layers"])):
        at, name = f"{DECODER}.layers.{layer}", f"layers.{layer}"
        qkv = tuple(f"{at}.self_attn.{x}_proj" for x in "qkv")
        groups += [
            weight_group(f"{name}.attention.qkv", qkv, (hidden,) * 3, hidden, bias=bias),
            weight_group(
                f"{name}.attention.output", (f"{at}.self_attn.out_proj",), (hidden,), hidden, bias=bias
            ),
            weight_group(f"{name}.mlp.up", (f"{at}.fc1",), (inner,), hidden, bias=bias),
            weight_group(f"{name}.mlp.down", (f"{at}.fc2",), (hidden,), inner, bias=bias, rectified=True),
        ]
    width = int(full.get("word_embed_proj_dim") or hidden)
    if width != hidden:
        groups += [
            weight_group(PROJECT_IN, (f"{DECODER}.project_in",), (hidden,), width),
            weight_group(PROJECT_OUT, (f"{DECODER}.project_out",), (width,), hidden),
        ]
    embedding = (f"{DECODER}.embed_tokens",)
    return (*groups, weight_group(EMBEDDING, embedding, (int(full["vocab_size"]),), width))


def _others(layers: int, hidden: int, positions: int, *, last_norm: bool) -> dict[str, tuple[int, ...]]:
    norms = [f"{DECODER}.final_layer_norm"] if last_norm else []
    for layer in range(layers):
        norms += [f"{DECODER}.layers.{layer}.{n}" for n in ("self_attn_layer_norm", "final_layer_norm")]
    table = {f"{DECODER}.embed_positions.weight": (positions + POSITION_OFFSET, hidden)}
    return table | {f"{norm}.{kind}": (hidden,) for norm in norms for kind in ("weight", "bias")}
