"""The decoder of OPT (pre-norm, tied embedding) as a fused graph, built node by node.

Notation: B batch, T tokens of this step, S columns of the mask, P positions of the cache, H hidden size,
A heads, D head size, V vocabulary.

Lengths come from the sum of the mask, never from its width: S may be the tokens so far, as onnxruntime-genai
passes it, or the whole context, which lets a mask be bound once. Padding stands on the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from edgeicl.emit.data_file import DataFile
from edgeicl.emit.graph import FUSED, GraphBuilder
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.anatomy import DECODER, EMBEDDING, LABEL_HEAD, opt_config

# HF starts the position table with two rows that no token uses
_POSITION_OFFSET = 2
_NORM_EPSILON = 1e-5
_KV = ("key", "value")


def build_opt(config: Mapping[str, Any], weights: QuantizedWeights, data: DataFile) -> OptGraph:
    """Builds the nodes and announces every tensor to `data`; nothing is written yet.

    Raises:
        DataError: a configuration that the graph doesn't cover, or a tensor that isn't there.
    """
    return OptGraph(opt_config(config), GraphBuilder(weights, data))


class OptGraph:
    """The graph under construction, and after it the model around the stored initializers."""

    def __init__(self, config: Mapping[str, Any], builder: GraphBuilder) -> None:
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.head_size: int = config["hidden_size"] // self.heads
        self._builder = builder
        self._lengths()
        tokens = builder.embedding("input_ids", EMBEDDING, "tokens")
        table = builder.parameter(f"{DECODER}.embed_positions.weight", first_row=_POSITION_OFFSET)
        positions = builder.node("Gather", [table, "positions"], ["position_rows"])
        residual, delta = tokens, positions
        for layer in range(self.layers):
            residual, delta = self._layer(layer, residual, delta)
        hidden, _ = self._add_and_norm(residual, delta, f"{DECODER}.final_layer_norm", "final")
        self.logits: int = config["vocab_size"]
        if builder.weights.has(LABEL_HEAD):
            self.logits, _ = builder.weights.shape(LABEL_HEAD)
            builder.label_head(hidden, "logits")
        else:
            builder.tied_head(hidden, EMBEDDING, "logits")

    def _lengths(self) -> None:
        """Positions of this step's tokens, lengths for attention, and where each row's last token is."""
        node, constant = self._builder.node, self._builder.constant
        zero, one = constant("zero", [0]), constant("one", [1])
        node("ReduceSum", ["attention_mask", one], ["row_lengths"], keepdims=0)  # [B]
        node("Sub", ["row_lengths", one], ["last_positions"])
        node("Cast", ["last_positions"], ["seqlens_k"], to=TensorProto.INT32)
        node("Shape", ["input_ids"], ["step_tokens"], start=1, end=2)  # [1]
        node("ReduceMax", ["row_lengths"], ["longest"], keepdims=1)  # [1]
        # a padded first prompt is as long as its rows, padding and all: that is how attention tells it apart
        node("Max", ["longest", "step_tokens"], ["total"])
        node("Cast", ["total"], ["total_sequence_length"], to=TensorProto.INT32)

        node("Sub", ["row_lengths", "step_tokens"], ["rows_before"])
        node("Max", ["rows_before", zero], ["past_tokens"])
        node("Unsqueeze", ["past_tokens", one], ["past_column"])  # [B, 1]
        node("Squeeze", ["step_tokens"], ["step_count"])
        node("Range", [constant("zero_count", 0), "step_count", constant("one_count", 1)], ["step_offsets"])
        node("Add", ["past_column", "step_offsets"], ["positions"])  # [B, T]

        node("Min", ["row_lengths", "step_tokens"], ["valid_tokens"])
        node("Sub", ["valid_tokens", one], ["last_tokens"])
        node("Unsqueeze", ["last_tokens", constant("index_axes", [1, 2])], ["last_index"])  # [B, 1, 1]

    def _layer(self, layer: int, residual: str, delta: str) -> tuple[str, str]:
        """Adds `delta` to the residual stream, then attention and MLP; the last layer keeps one position."""
        node, name, parameters = self._builder.node, f"layers.{layer}", f"{DECODER}.layers.{layer}"
        normed, residual = self._add_and_norm(
            residual, delta, f"{parameters}.self_attn_layer_norm", f"{name}.attention"
        )
        qkv = self._builder.linear(normed, f"{name}.attention.qkv", f"{name}.qkv")
        attended = node(
            "GroupQueryAttention",
            [qkv, "", "", f"past_key_values.{layer}.key", f"past_key_values.{layer}.value",
             "seqlens_k", "total_sequence_length"],
            [f"{name}.attended", f"present.{layer}.key", f"present.{layer}.value"],
            domain=FUSED, num_heads=self.heads, kv_num_heads=self.heads, do_rotary=0,
            scale=self.head_size**-0.5,
        )  # fmt: skip
        if layer == self.layers - 1:
            # only the last token's logits are wanted, and from here on positions don't meet any more
            attended = self._last_token(attended, f"{name}.attended.last")
            residual = self._last_token(residual, f"{name}.residual.last")
        delta = self._builder.linear(attended, f"{name}.attention.output", f"{name}.attention_output")
        normed, residual = self._add_and_norm(residual, delta, f"{parameters}.final_layer_norm", f"{name}.mlp")
        widened = self._builder.linear(normed, f"{name}.mlp.up", f"{name}.up")
        active = node("Relu", [widened], [f"{name}.relu"])
        return residual, self._builder.linear(active, f"{name}.mlp.down", f"{name}.down")

    def _add_and_norm(self, residual: str, delta: str, parameters: str, name: str) -> tuple[str, str]:
        """LayerNorm(residual + delta), and the sum."""
        weight = self._builder.parameter(f"{parameters}.weight")
        bias = self._builder.parameter(f"{parameters}.bias")
        total = f"{name}.residual"
        # Sum, because the runtime fuses Add with a norm into SkipLayerNormalization: 5 to 8 % slower in all
        self._builder.node("Sum", [residual, delta], [total])
        normed = self._builder.node(
            "LayerNormalization", [total, weight, bias], [f"{name}.norm"], axis=-1, epsilon=_NORM_EPSILON
        )
        return normed, total

    def _last_token(self, source: str, output: str) -> str:
        """[B, T, H] -> [B, 1, H], each row's last token that isn't padding."""
        return self._builder.node("GatherND", [source, "last_index"], [output], batch_dims=1)

    def model(self, stored: Sequence[TensorProto]) -> ModelProto:
        """The model, once its weights are written."""
        cache: list[str | int] = ["batch", self.heads, "cache", self.head_size]
        present: list[str | int] = ["batch", self.heads, "present", self.head_size]
        layers = range(self.layers)
        inputs = [
            _info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            _info("attention_mask", TensorProto.INT64, ["batch", "mask"]),
            *(_info(f"past_key_values.{i}.{x}", TensorProto.FLOAT, cache) for i in layers for x in _KV),
        ]
        outputs = [
            _info("logits", TensorProto.FLOAT, ["batch", 1, self.logits]),
            *(_info(f"present.{i}.{x}", TensorProto.FLOAT, present) for i in layers for x in _KV),
        ]
        return self._builder.model("opt_decoder", inputs, outputs, stored)


def _info(name: str, element_type: int, shape: Sequence[str | int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, list(shape))
