"""Which parameters of a decoder share one format, and which stay as they are.

A weight group is what one kernel reads: packed QKV, attention output, fc1, fc2, and the token embedding with
the head tied to it. Names of parameters are those of `OPTForCausalLM.state_dict()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from edgeicl.errors import DataError

DECODER = "model.decoder"
EMBEDDING = "embedding"
LABEL_HEAD = "label_head.weight"
"""The labels' rows of the head [L, H], stored in fp32 where the artifact has logits of these alone."""


@dataclass(frozen=True)
class WeightGroup:
    """Matrices that are stored as one, stacked by rows.

    Args:
        name: `layers.0.attention.qkv`, `layers.0.attention.output`, `layers.0.mlp.up`, `layers.0.mlp.down`
            or `embedding`.
        weights: Parameter names, in the order of stacking.
        biases: Parameter names in the same order; empty where there are none.
        shape: (N, K) of the stacked matrix: outputs and inputs (embedding: vocabulary and width).
    """

    name: str
    weights: tuple[str, ...]
    biases: tuple[str, ...]
    shape: tuple[int, int]

    @property
    def layer(self) -> int | None:
        """Index of the decoder layer; None for the embedding."""
        return None if self.name == EMBEDDING else int(self.name.split(".")[1])


# What edgeicl needs of an OPT configuration, with the value that config.json means by leaving a key out.
_OPT_DEFAULTS: dict[str, Any] = {
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
_OPT_REQUIRED: dict[str, Any] = {
    "do_layer_norm_before": True,
    "_remove_final_layer_norm": False,
    "layer_norm_elementwise_affine": True,
    "activation_function": "relu",
    "tie_word_embeddings": True,
}


def opt_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` (a config.json) with its defaults filled in, checked.

    Raises:
        DataError: the model is not an OPT model that edgeicl can compile; names all that is unsupported.
    """
    if config.get("model_type") != "opt":
        raise DataError(
            f"model type {config.get('model_type')!r} is not supported; expected 'opt'",
            next_step="name an OPT model in the recipe, such as facebook/opt-125m",
        )
    full = {**_OPT_DEFAULTS, **config}
    unsupported = [
        f"{key} = {full[key]!r} (expected {want!r})" for key, want in _OPT_REQUIRED.items() if full[key] != want
    ]
    projection = full.get("word_embed_proj_dim") or full["hidden_size"]
    if projection != full["hidden_size"]:
        unsupported.append(f"word_embed_proj_dim = {projection} (expected hidden_size, {full['hidden_size']})")
    if unsupported:
        raise DataError(
            f"this OPT model is not supported: {'; '.join(unsupported)}",
            next_step="use a pre-norm OPT model with tied embeddings, such as facebook/opt-125m or opt-1.3b",
        )
    return full


def weight_groups(config: Mapping[str, Any]) -> tuple[WeightGroup, ...]:
    """The weight groups of a model, in the order of computation, the embedding last."""
    full = opt_config(config)
    hidden, inner = int(full["hidden_size"]), int(full["ffn_dim"])
    groups: list[WeightGroup] = []
    for layer in range(int(full["num_hidden_layers"])):
        for name, modules, shape in (
            ("attention.qkv", tuple(f"self_attn.{x}_proj" for x in "qkv"), (3 * hidden, hidden)),
            ("attention.output", ("self_attn.out_proj",), (hidden, hidden)),
            ("mlp.up", ("fc1",), (inner, hidden)),
            ("mlp.down", ("fc2",), (hidden, inner)),
        ):
            at = [f"{DECODER}.layers.{layer}.{module}" for module in modules]
            biases = tuple(f"{module}.bias" for module in at) if full["enable_bias"] else ()
            weights = tuple(f"{module}.weight" for module in at)
            groups.append(WeightGroup(f"layers.{layer}.{name}", weights, biases, shape))
    embedding = (f"{DECODER}.embed_tokens.weight",)
    groups.append(WeightGroup(EMBEDDING, embedding, (), (int(full["vocab_size"]), hidden)))
    return tuple(groups)


def other_parameters(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter outside the weight groups: positions and norms; kept in fp32.

    The position table has two rows more than there are positions: OPT's offset.
    """
    full = opt_config(config)
    hidden = int(full["hidden_size"])
    norms = [f"{DECODER}.final_layer_norm"]
    for layer in range(int(full["num_hidden_layers"])):
        norms += [f"{DECODER}.layers.{layer}.{n}" for n in ("self_attn_layer_norm", "final_layer_norm")]
    shapes: dict[str, tuple[int, ...]] = {
        f"{DECODER}.embed_positions.weight": (int(full["max_position_embeddings"]) + 2, hidden)
    }
    return shapes | {f"{norm}.{kind}": (hidden,) for norm in norms for kind in ("weight", "bias")}


def fixed_tensor_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of the deployed tensors that no plan can change, all fp32: positions, norms and biases.

    The two rows that OPT's position table starts with aren't deployed.
    """
    hidden = int(opt_config(config)["hidden_size"])
    others = sum(prod(shape) for shape in other_parameters(config).values())
    biases = sum(group.shape[0] for group in weight_groups(config) if group.biases)
    return 4 * (others - 2 * hidden + biases)
