"""What the compiler knows of a decoder, whatever its architecture: sizes, and where each weight belongs.

A weight group is what one kernel reads: packed QKV, attention output, the two halves of the MLP, and the token
embedding with the head that is tied to it. An untied head is a group of its own. Names of parameters are those
of `state_dict()` of the architecture's model for causal language modelling in transformers.

Every architecture fills in an `Anatomy` in a file of its own: see `edgeicl.models.architectures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from edgeicl.errors import DataError
from edgeicl.numerics.size import prefill_bytes

EMBEDDING = "embedding"
HEAD = "head"
PROJECT_IN, PROJECT_OUT = "project_in", "project_out"
"""Between the width of the embedding and that of the residual stream, where the two differ."""
LABEL_HEAD = "label_head.weight"
"""The labels' rows of the head [L, E], stored in fp32 where the artifact has logits of these alone."""


def cache_scale_names(layer: int) -> tuple[str, str]:
    """Tensors [heads, head size] with the scales of a layer's keys and values in an 8-bit cache."""
    return f"layers.{layer}.attention.key_scales", f"layers.{layer}.attention.value_scales"


def prompt_tensors(group: str) -> str:
    """What the names of a layer's group's tensors begin with where it is stored once more to read prompts."""
    return f"prompt.{group}"


def input_step_name(group: str) -> str:
    """Tensor [1] with the step that all tokens' inputs of the group are rounded in by an integer product."""
    return f"{group}.input_step"


@dataclass(frozen=True)
class WeightGroup:
    """Matrices that are stored as one, stacked by rows.

    Args:
        name: `layers.0.attention.qkv`, `layers.0.attention.output`, `layers.0.mlp.up` (gated: `mlp.gate_up`),
            `layers.0.mlp.down`, `project_in`, `project_out`, `embedding`, or `head`.
        weights: Parameter names, in the order of stacking.
        biases: Parameter names in the same order; empty where there are none.
        shape: (N, K) of the stacked matrix: outputs and inputs (embedding: vocabulary and width).
        parts: Rows of each of `weights`; they add up to N.
        transposed: Whether the parameters are [inputs, outputs], as GPT-2 has them.
        rectified: Whether its inputs come out of a ReLU, so that none is negative.
    """

    name: str
    weights: tuple[str, ...]
    biases: tuple[str, ...]
    shape: tuple[int, int]
    parts: tuple[int, ...]
    transposed: bool = False
    rectified: bool = False

    @property
    def layer(self) -> int | None:
        """Index of the decoder layer; None for what lies outside of layers."""
        return int(self.name.split(".")[1]) if self.name.startswith("layers.") else None

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter, as checkpoints store it."""
        columns = self.shape[1]
        weights = {
            name: (columns, rows) if self.transposed else (rows, columns)
            for name, rows in zip(self.weights, self.parts, strict=True)
        }
        biases = zip(self.biases, self.parts, strict=True) if self.biases else ()
        return weights | {name: (rows,) for name, rows in biases}


def weight_group(
    name: str,
    modules: tuple[str, ...],
    rows: tuple[int, ...],
    columns: int,
    *,
    bias: bool = False,
    transposed: bool = False,
    rectified: bool = False,
) -> WeightGroup:
    """The group of `modules`, each with `.weight` and, where there is a `bias`, `.bias`."""
    weights = tuple(f"{module}.weight" for module in modules)
    biases = tuple(f"{module}.bias" for module in modules) if bias else ()
    return WeightGroup(name, weights, biases, (sum(rows), columns), rows, transposed, rectified)


@dataclass(frozen=True)
class Anatomy:
    """One model.

    Args:
        model_type: As in config.json.
        causal_lm: Its class in transformers.
        config: config.json with its defaults filled in.
        layers, heads, kv_heads, head_size, vocabulary: Counts, and numbers of one head.
        hidden: Width of the residual stream.
        positions: The longest text the model reads, in tokens.
        groups: The weight groups in the order of computation; embedding and head last.
        others: Name -> shape of every other parameter: positions and norms; they stay in fp32.
        special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`, where configuration or architecture has
            them.
        prefix: What the names of all parameters but the head's start with; checkpoints may leave it out.
        undeployed: Numbers of `others` that aren't deployed.
        computed_bytes: Of tables that the runtime computes when it loads the graph: in memory, in no file.
        head_norms: Whether each head's query and key is normed.
        graph_bytes: Of the graph that Optimum writes, without tensors, at most; None for a lowering's.
    """

    model_type: str
    causal_lm: str
    config: Mapping[str, Any]
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    positions: int
    vocabulary: int
    groups: tuple[WeightGroup, ...]
    others: Mapping[str, tuple[int, ...]]
    special_ids: Mapping[str, int | list[int]]
    prefix: str
    undeployed: int = 0
    computed_bytes: int = 0
    head_norms: bool = False
    graph_bytes: int | None = None

    @property
    def parameters(self) -> int:
        """Numbers of all weight groups, about as many as the model has."""
        return sum(prod(group.shape) for group in self.groups)

    @property
    def rectified(self) -> frozenset[str]:
        """Names of the groups whose inputs come out of a ReLU."""
        return frozenset(group.name for group in self.groups if group.rectified)

    @property
    def exported(self) -> bool:
        """Whether the graph is Optimum's: there is no row for this architecture."""
        return self.graph_bytes is not None

    def group(self, name: str) -> WeightGroup:
        """The group of this name."""
        return next(group for group in self.groups if group.name == name)

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return all(group.name != HEAD for group in self.groups)

    def require_tied(self, model: str) -> None:
        """DataError, naming the `model`, for one whose labels' rows can't be its head."""
        if not self.tied:
            raise DataError(
                f"{model} is a {self.model_type} model with a head of its own; found emit.head: verbalizers, "
                "expected a head that is tied to the embedding",
                next_step="set emit.head: full",
            )

    @property
    def projected(self) -> bool:
        """Whether embedding and residual stream differ in width, with a matrix between them."""
        return self.embedding_width != self.hidden

    @property
    def kv_width(self) -> int:
        """Numbers of one layer's keys (and of its values) for one token."""
        return self.kv_heads * self.head_size

    @property
    def widest(self) -> int:
        """Outputs of the widest product within a layer: what the MLP works on."""
        return max(group.shape[0] for group in self.groups if group.layer is not None and ".mlp." in group.name)

    @property
    def embedding_width(self) -> int:
        """Numbers of a token's embedding."""
        return self.group(EMBEDDING).shape[1]

    def multiplies(self, group: WeightGroup) -> bool:
        """Whether a product reads the group; tokens are merely looked up in the table beside an untied head."""
        return self.tied or group.name != EMBEDDING

    def activation_bytes(self, prompt_tokens: int) -> int:
        """Bytes of activations while a prompt is read, at their peak."""
        width = max(self.hidden, self.heads * self.head_size)
        gated = any(group.name.endswith(".mlp.gate_up") for group in self.groups)
        return prefill_bytes(width, self.widest, prompt_tokens, gated=gated)

    @property
    def position_table_bytes(self) -> int:
        """Bytes of the deployed table of positions; of the tensors outside the groups the only matrix."""
        return 4 * (sum(prod(shape) for shape in self.others.values() if len(shape) == 2) - self.undeployed)

    @property
    def fixed_tensor_bytes(self) -> int:
        """Bytes of the deployed tensors that no plan can change, all fp32: positions, norms and biases."""
        biases = sum(group.shape[0] for group in self.groups if group.biases)
        return 4 * (sum(prod(shape) for shape in self.others.values()) - self.undeployed + biases)
