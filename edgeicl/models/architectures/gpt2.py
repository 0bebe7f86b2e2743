"""GPT-2 (Radford et al., 2019): learned positions, LayerNorm before each block, GELU in its tanh form.

Its parameters are [inputs, outputs], and queries, keys and values are one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeicl.models.anatomy import EMBEDDING, HEAD, Anatomy, WeightGroup, weight_group
from edgeicl.models.architectures.checked_config import (
    HEAD_SIZE_MULTIPLE,
    checked,
    head_size_problem,
    special_ids,
)

DECODER = "transformer"

# What edgeicl needs of a configuration, with the value that config.json means by leaving a key out.
_DEFAULTS: dict[str, Any] = {
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "n_positions": 1024,
    "vocab_size": 50257,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_REQUIRED: dict[str, Any] = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def anatomy(config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of a GPT-2 model.

    Raises:
        DataError: a configuration that edgeicl can't compile; names all that is unsupported.
    """
    sizes = {**_DEFAULTS, **config}
    hidden, heads = int(sizes["n_embd"]), int(sizes["n_head"])
    problem = head_size_problem(hidden, heads, HEAD_SIZE_MULTIPLE)
    full = checked(config, _DEFAULTS, _REQUIRED, [problem] if problem else [])
    layers, positions = int(full["n_layer"]), int(full["n_positions"])
    return Anatomy(
        model_type="gpt2",
        causal_lm="GPT2LMHeadModel",
        config=full,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_size=hidden // heads,
        positions=positions,
        vocabulary=int(full["vocab_size"]),
        groups=_groups(full),
        others=_others(layers, hidden, positions),
        special_ids=special_ids(full, {"bos_token_id": 50256, "eos_token_id": 50256}),
        prefix=f"{DECODER}.",
    )


def _groups(full: Mapping[str, Any]) -> tuple[WeightGroup, ...]:
    hidden = int(full["n_embd"])
    inner = int(full["n_inner"] or 4 * hidden)
    groups: list[WeightGroup] = []
    for layer in range(int(full["n_layer"])):
        groups += [
            weight_group(
                f"layers.{layer}.{name}",
                (f"{DECODER}.h.{layer}.{module}",),
                (rows,),
                columns,
                bias=True,
                transposed=True,
            )
            for name, module, rows, columns in (
                ("attention.qkv", "attn.c_attn", 3 * hidden, hidden),
                ("attention.output", "attn.c_proj", hidden, hidden),
                ("mlp.up", "mlp.c_fc", inner, hidden),
                ("mlp.down", "mlp.c_proj", hidden, inner),
            )
        ]
    vocabulary = (int(full["vocab_size"]),)
    groups.append(weight_group(EMBEDDING, (f"{DECODER}.wte",), vocabulary, hidden))
    if not full["tie_word_embeddings"]:
        groups.append(weight_group(HEAD, ("lm_head",), vocabulary, hidden))
    return tuple(groups)


def _others(layers: int, hidden: int, positions: int) -> dict[str, tuple[int, ...]]:
    norms = [f"{DECODER}.ln_f", *(f"{DECODER}.h.{layer}.ln_{n}" for layer in range(layers) for n in (1, 2))]
    table = {f"{DECODER}.wpe.weight": (positions, hidden)}
    return table | {f"{norm}.{kind}": (hidden,) for norm in norms for kind in ("weight", "bias")}
