"""A decoder as a fused graph, built node by node: what all architectures have in common.

Notation: B batch, T tokens of this step, S columns of the mask, P positions of the cache, H hidden size,
A heads, D head size, V vocabulary.

Lengths come from the sum of the mask, never from its width: S may be the tokens so far, as onnxruntime-genai
passes it, or the whole context, which lets a mask be bound once. Padding stands on the right.

Of an architecture this needs where its tokens come from, its norms, its MLP, and what happens to queries and
keys before attention. Blocks read the normed residual stream and add to the stream itself (pre-norm), unless
the architecture says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from edgeicl.emit.attention import attention
from edgeicl.emit.branches import IS_PROMPT, TOKEN, by_tokens
from edgeicl.emit.cache_graph import KV, cache_type, first_prompt
from edgeicl.emit.graph import GraphBuilder
from edgeicl.models.anatomy import EMBEDDING, HEAD, LABEL_HEAD, Anatomy


class DecoderGraph(ABC):
    """The graph under construction, and after it the model around the stored initializers."""

    looks_up_positions: ClassVar[bool]
    """Whether the graph needs the position of every token, `positions` [B, T]."""

    def __init__(self, anatomy: Anatomy, builder: GraphBuilder) -> None:
        """Builds the nodes and announces every tensor to the builder's data file; nothing is written yet."""
        self.anatomy = anatomy
        self._builder = builder
        self._lengths()
        stream = self._embed()
        if builder.weights.plan.prompt_format is None:
            stream = self._layers(*stream)
        else:
            kept, layers = cache_type(builder), range(anatomy.layers)
            presents = {f"present.{layer}.{part}": kept for layer in layers for part in KV}
            found = by_tokens(builder, lambda: self._layers(*stream), presents=presents)
            stream = found[0] or "", found[1]
        hidden = self._finish(*stream)
        self.logits = anatomy.vocabulary
        if builder.weights.has(LABEL_HEAD):
            self.logits, _ = builder.weights.shape(LABEL_HEAD)
            builder.label_head(hidden, "logits")
            return
        head = builder.tied_head if anatomy.tied else builder.linear
        builder.logits(lambda output: head(hidden, EMBEDDING if anatomy.tied else HEAD, output))

    @abstractmethod
    def _embed(self) -> tuple[str, str | None]:
        """The residual stream before the first layer, and what is still to be added to it."""

    @abstractmethod
    def _norm(self, source: str, parameters: str, output: str) -> str:
        """The normed `source` [B, T, H]."""

    @abstractmethod
    def _mlp(self, layer: int, source: str) -> str:
        """What the MLP adds to the residual stream."""

    @abstractmethod
    def _norm_names(self, layer: int) -> tuple[str, str]:
        """Parameters of the norms before attention and before the MLP."""

    @property
    @abstractmethod
    def _final_norm_name(self) -> str: ...

    def _rotary(self) -> tuple[list[str], dict[str, Any]]:
        """Inputs and attributes by which attention turns queries and keys by their positions."""
        return [], {"do_rotary": 0}

    def _heads(self, layer: int, qkv: str) -> list[str]:
        """Query, key and value inputs of attention; packed in one unless something happens to them before."""
        return [qkv, "", ""]

    def _lengths(self) -> None:
        """Lengths for attention, positions of this step's tokens, and where each row's last token is."""
        node, constant = self._builder.node, self._builder.constant
        zero = constant("zero", [0]) if self.looks_up_positions else ""
        one = constant("one", [1])
        node("ReduceSum", ["attention_mask", one], ["row_lengths"], keepdims=0)  # [B]
        node("Sub", ["row_lengths", one], ["last_positions"])
        node("Cast", ["last_positions"], ["seqlens_k"], to=TensorProto.INT32)
        node("Shape", ["input_ids"], ["step_tokens"], start=1, end=2)  # [1]
        node("ReduceMax", ["row_lengths"], ["longest"], keepdims=1)  # [1]
        # a padded first prompt is as long as its rows, padding and all: that is how attention tells it apart
        node("Max", ["longest", "step_tokens"], ["total"])
        node("Cast", ["total"], ["total_sequence_length"], to=TensorProto.INT32)

        plan = self._builder.weights.plan
        if plan.prompt_format is not None or plan.rounds_after_prompts:
            node("Greater", ["step_tokens", one], [IS_PROMPT])

        if self.looks_up_positions:
            node("Sub", ["row_lengths", "step_tokens"], ["rows_before"])
            node("Max", ["rows_before", zero], ["past_tokens"])
            node("Unsqueeze", ["past_tokens", one], ["past_column"])  # [B, 1]
            node("Squeeze", ["step_tokens"], ["step_count"])
            counts = [constant("zero_count", 0), "step_count", constant("one_count", 1)]
            node("Range", counts, ["step_offsets"])
            node("Add", ["past_column", "step_offsets"], ["positions"])  # [B, T]

        node("Min", ["row_lengths", "step_tokens"], ["valid_tokens"])
        node("Sub", ["valid_tokens", one], ["last_tokens"])
        node("Unsqueeze", ["last_tokens", constant("index_axes", [1, 2])], ["last_index"])  # [B, 1, 1]

    def _layers(self, residual: str, delta: str | None) -> tuple[str, str | None]:
        """The residual stream behind the last layer, and what is still to be added to it."""
        if self._builder.weights.plan.rounds_after_prompts and self._builder.branch != TOKEN:
            first_prompt(self._builder, self.anatomy.kv_heads)
        for layer in range(self.anatomy.layers):
            residual, delta = self._layer(layer, residual, delta)
        return residual, delta

    def _layer(self, layer: int, residual: str, delta: str | None) -> tuple[str, str | None]:
        """Adds `delta` to the residual stream, then attention and MLP; the last layer keeps one position."""
        name = f"layers.{layer}"
        before_attention, before_mlp = self._norm_names(layer)
        normed, residual = self._add_and_norm(residual, delta, before_attention, f"{name}.attention")
        attended, residual = self._attention(layer, normed, residual)
        delta = self._builder.linear(attended, f"{name}.attention.output", f"{name}.attention_output")
        normed, residual = self._add_and_norm(residual, delta, before_mlp, f"{name}.mlp")
        return residual, self._mlp(layer, normed)

    def _attention(self, layer: int, source: str, residual: str) -> tuple[str, str]:
        """What the heads found, and the residual stream; of the last layer at the last token alone."""
        anatomy, name = self.anatomy, f"layers.{layer}"
        qkv = self._builder.linear(source, f"{name}.attention.qkv", f"{name}.qkv")
        tables, rotary = self._rotary()
        attended = attention(self._builder, anatomy, layer, self._heads(layer, qkv), tables, rotary)
        if layer == anatomy.layers - 1:
            # only the last token's logits are wanted, and from here on positions don't meet any more
            attended = self._last_token(attended, f"{name}.attended.last")
            residual = self._last_token(residual, f"{name}.residual.last")
        return attended, residual

    def _finish(self, residual: str, delta: str | None) -> str:
        """What the head reads, [B, 1, H]."""
        return self._add_and_norm(residual, delta, self._final_norm_name, "final")[0]

    def _add_and_norm(self, residual: str, delta: str | None, parameters: str, name: str) -> tuple[str, str]:
        """The normed sum of both, and the sum."""
        total = self._sum(residual, delta, f"{name}.residual")
        return self._norm(total, parameters, f"{name}.norm"), total

    def _sum(self, residual: str, delta: str | None, output: str) -> str:
        """Both together, or the one that there is."""
        # Sum, because the runtime fuses Add with a norm into SkipLayerNormalization: 5 to 8 % slower in all
        return residual if delta is None else self._builder.node("Sum", [residual, delta], [output])

    def _last_token(self, source: str, output: str) -> str:
        """[B, T, H] -> [B, 1, H], each row's last token that isn't padding."""
        return self._builder.node("GatherND", [source, "last_index"], [output], batch_dims=1)

    def model(self, stored: Sequence[TensorProto]) -> ModelProto:
        """The model, once its weights are written."""
        anatomy, layers = self.anatomy, range(self.anatomy.layers)
        cache: list[str | int] = ["batch", anatomy.kv_heads, "cache", anatomy.head_size]
        present: list[str | int] = ["batch", anatomy.kv_heads, "present", anatomy.head_size]
        kept = cache_type(self._builder)
        inputs = [
            _info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            _info("attention_mask", TensorProto.INT64, ["batch", "mask"]),
            *(_info(f"past_key_values.{i}.{x}", kept, cache) for i in layers for x in KV),
        ]
        outputs = [
            _info("logits", TensorProto.FLOAT, ["batch", 1, self.logits]),
            *(_info(f"present.{i}.{x}", kept, present) for i in layers for x in KV),
        ]
        return self._builder.model(f"{anatomy.model_type}_decoder", inputs, outputs, stored)


def _info(name: str, element_type: int, shape: Sequence[str | int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, list(shape))
