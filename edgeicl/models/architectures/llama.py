"""The Llama family: rotary positions, RMSNorm, a gated MLP, and fewer heads of keys and values than of queries.

Llama (arXiv 2307.09288) and SmolLM; Qwen2 (2407.10671), whose queries, keys and values have biases; Qwen3
(2505.09388), which norms each head's query and key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeicl.models.anatomy import EMBEDDING, HEAD, Anatomy, WeightGroup, weight_group
from edgeicl.models.architectures.checked_config import checked, head_size_problem, special_ids
from edgeicl.models.rotary import rotary_problem

ROTARY_HEAD_SIZE_MULTIPLE = 16
"""onnxruntime's attention turns queries and keys by their positions in heads of such sizes only."""

# The value that config.json means by leaving a key out.
_COMMON: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
    "qwen2": {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        "use_sliding_window": False,
    },
    "qwen3": {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "use_sliding_window": False,
    },
}
_REQUIRED: dict[str, dict[str, Any]] = {
    "llama": {"hidden_act": "silu"},
    "qwen2": {"hidden_act": "silu", "use_sliding_window": False, "mlp_bias": False},
    "qwen3": {"hidden_act": "silu", "use_sliding_window": False, "mlp_bias": False},
}
_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_SPECIAL = {"llama": {"bos_token_id": 1, "eos_token_id": 2}, "qwen2": {}, "qwen3": {}}


def anatomy(config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of a model of the family.

    Raises:
        DataError: a configuration that edgeicl can't compile; names all that is unsupported.
    """
    model_type = config["model_type"]
    defaults = _COMMON | _DEFAULTS[model_type]
    sizes = {**defaults, **config}
    hidden, heads = int(sizes["hidden_size"]), int(sizes["num_attention_heads"])
    width = heads * int(sizes["head_dim"]) if sizes.get("head_dim") else hidden
    problems = [rotary_problem(config), head_size_problem(width, heads, ROTARY_HEAD_SIZE_MULTIPLE)]
    full = checked(config, defaults, _REQUIRED[model_type], [found for found in problems if found])
    layers, positions = int(full["num_hidden_layers"]), int(full["max_position_embeddings"])
    head_size, head_norms = width // heads, model_type == "qwen3"
    kv_heads = int(full.get("num_key_value_heads") or heads)
    return Anatomy(
        model_type=model_type,
        causal_lm=_CLASSES[model_type],
        config=full,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        positions=positions,
        vocabulary=int(full["vocab_size"]),
        groups=_groups(full, heads * head_size, kv_heads * head_size),
        others=_others(layers, hidden, head_size if head_norms else None),
        special_ids=special_ids(full, _SPECIAL[model_type]),
        prefix="model.",
        head_norms=head_norms,
        computed_bytes=2 * 4 * positions * (head_size // 2),
    )


def _groups(full: Mapping[str, Any], query_width: int, kv_width: int) -> tuple[WeightGroup, ...]:
    hidden, inner = int(full["hidden_size"]), int(full["intermediate_size"])
    qwen2 = full["model_type"] == "qwen2"
    qkv_bias = qwen2 or bool(full["attention_bias"])
    output_bias = not qwen2 and bool(full["attention_bias"])
    mlp_bias = bool(full["mlp_bias"])
    groups: list[WeightGroup] = []
    for layer in range(int(full["num_hidden_layers"])):
        at, name = f"model.layers.{layer}", f"layers.{layer}"
        qkv = tuple(f"{at}.self_attn.{x}_proj" for x in "qkv")
        output, down = (f"{at}.self_attn.o_proj",), (f"{at}.mlp.down_proj",)
        gate_up = (f"{at}.mlp.gate_proj", f"{at}.mlp.up_proj")
        widths = (query_width, kv_width, kv_width)
        groups += [
            weight_group(f"{name}.attention.qkv", qkv, widths, hidden, bias=qkv_bias),
            weight_group(f"{name}.attention.output", output, (hidden,), query_width, bias=output_bias),
            weight_group(f"{name}.mlp.gate_up", gate_up, (inner, inner), hidden, bias=mlp_bias),
            weight_group(f"{name}.mlp.down", down, (hidden,), inner, bias=mlp_bias),
        ]
    vocabulary = (int(full["vocab_size"]),)
    groups.append(weight_group(EMBEDDING, ("model.embed_tokens",), vocabulary, hidden))
    if not full["tie_word_embeddings"]:
        groups.append(weight_group(HEAD, ("lm_head",), vocabulary, hidden))
    return tuple(groups)


def _others(layers: int, hidden: int, normed_head: int | None) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (hidden,)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.{n}_layernorm.weight": (hidden,) for n in ("input", "post_attention")}
        if normed_head is not None:
            shapes |= {f"{at}.self_attn.{x}_norm.weight": (normed_head,) for x in "qk"}
    return shapes
