"""Graphs that consist of one part of a decoder alone, made by what makes decoders: to be timed on a device.

Notation: T tokens, H width of the residual stream, F inner width of the MLP, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from edgeicl.emit.attention import attention as lower_attention
from edgeicl.emit.branches import IS_PROMPT
from edgeicl.emit.cache_graph import KV, first_prompt
from edgeicl.emit.data_file import DataFile
from edgeicl.emit.graph import GraphBuilder
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.anatomy import cache_scale_names, input_step_name
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.specs.manifest import MODEL_FILE, WEIGHTS_FILE
from edgeicl.specs.quant_plan import Format, GroupPlan, PromptAttention, QuantPlan


@dataclass(frozen=True)
class Shape:
    """Of the layers whose parts are timed."""

    layers: int
    hidden: int
    inner: int
    heads: int

    @property
    def matrices(self) -> list[tuple[str, int, int]]:
        """Name, outputs and inputs of every product."""
        hidden, inner = self.hidden, self.inner
        each = [("qkv", 3 * hidden, hidden), ("output", hidden, hidden), ("up", inner, hidden)]
        each.append(("down", hidden, inner))
        return [(f"layers.{layer}.{name}", n, k) for layer in range(self.layers) for name, n, k in each]

    @property
    def weights(self) -> int:
        return sum(n * k for _, n, k in self.matrices)

    @property
    def numbers(self) -> int:
        """That products take or give, for one token."""
        return sum(n + k for _, n, k in self.matrices)


def write_products(folder: Path, shape: Shape, format_: Format) -> None:
    """Every product of the layers, of `stream` [1, T, H] or `inner` [1, T, F]; one output of each is summed.

    Integer products round all tokens in one step, and are of what a ReLU makes of `inner`, as those of OPT
    mostly are. Other activation functions want a step for each token there, which takes longer.
    """
    random = np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {}
    for name, n, k in shape.matrices:
        tensors[f"{name}.bias"] = np.zeros(n, np.float32)
        if format_.quantized:
            codes = np.frombuffer(random.bytes(n * k), np.uint8).reshape(n, k) >> (8 - format_.bits)
            tensors[f"{name}.codes"] = codes
            tensors[f"{name}.scales"] = np.full((n, k // format_.block_of(k)), 1e-3, np.float32)
            if not format_.symmetric:
                tensors[f"{name}.zero_points"] = np.ones_like(tensors[f"{name}.scales"], np.uint8)
            if format_.by_row:
                tensors[input_step_name(name)] = np.array([1e-2], np.float32)
        else:
            tensors[f"{name}.weight"] = np.full((n, k), 1e-3, f"float{format_.bits}")

    def build(builder: GraphBuilder) -> None:
        column = builder.constant("first_column", [0])
        taken = [
            builder.node(
                "Gather",
                [builder.linear(source, name, f"{name}.out", rectified=of_relu), column],
                [f"{name}.first"],
                axis=-1,
            )
            for name, _, k in shape.matrices
            for source in ["inner" if k == shape.inner else "stream"]
            for of_relu in [format_.by_row and k == shape.inner]
        ]
        builder.node("Sum", taken, ["result"])

    inputs = {"stream": shape.hidden, "inner": shape.inner}
    _write(folder, tensors, {name: format_ for name, _, _ in shape.matrices}, inputs, build)


def write_activations(folder: Path, shape: Shape) -> None:
    """What stands between the products: norms and sums of `stream` [1, T, H], ReLU of `inner` [1, T, F]."""
    norms = [f"norm.{part}" for part in range(2 * shape.layers)]
    ones = np.ones(shape.hidden, np.float32)
    tensors = {f"{norm}.{kind}": ones for norm in norms for kind in ("weight", "bias")}

    def build(builder: GraphBuilder) -> None:
        stream, active = "stream", "inner"
        for part, norm in enumerate(norms):
            normed = builder.layer_norm(stream, norm, f"normed.{part}", epsilon=1e-5)
            stream = builder.node("Sum", [stream, normed], [f"stream.{part}"])
            if part % 2:
                active = builder.node("Relu", [active], [f"active.{part}"])
        column = builder.constant("first_column", [0])
        ends = [builder.node("Gather", [end, column], [f"{end}.first"], axis=-1) for end in (stream, active)]
        builder.node("Sum", ends, ["result"])

    inputs = {"stream": shape.hidden, "inner": shape.inner}
    _write(folder, tensors, {"none": Format(bits=32)}, inputs, build)


def write_attention(
    folder: Path, shape: Shape, attention: PromptAttention, cache_bits: Literal[8, 32] = 32, room: int = 0
) -> None:
    """Attention of every layer to packed queries, keys and values `qkv` [1, T, 3 H], with an empty cache.

    It has `room` for so many tokens, or grows.
    """
    config = {"model_type": "opt", "num_hidden_layers": shape.layers, "hidden_size": shape.hidden}
    anatomy = anatomy_of({**config, "word_embed_proj_dim": shape.hidden, "num_attention_heads": shape.heads})
    size = (shape.heads, shape.hidden // shape.heads)

    def build(builder: GraphBuilder) -> None:
        node, constant = builder.node, builder.constant
        node("Shape", ["qkv"], ["step_tokens"], start=1, end=2)
        node("Cast", ["step_tokens"], ["total_sequence_length"], to=TensorProto.INT32)
        node("Sub", ["total_sequence_length", constant("last", [1], np.int32)], ["seqlens_k"])
        if builder.weights.plan.rounds_after_prompts:
            node("Identity", ["step_tokens"], ["total"])
            node("Greater", ["step_tokens", constant("one", [1])], [IS_PROMPT])
            first_prompt(builder, shape.heads)
        for past in (f"past_key_values.{layer}.{part}" for layer in range(shape.layers) for part in KV):
            constant(past, np.zeros((1, size[0], room, size[1])), np.int8 if cache_bits == 8 else np.float32)
        ends = [
            lower_attention(builder, anatomy, layer, ["qkv", "", ""], [], {"do_rotary": 0})
            for layer in range(shape.layers)
        ]
        node("Sum", ends, ["result"])

    plan = {"prompt_attention": attention, "cache_bits": cache_bits}
    names = [name for layer in range(shape.layers) for name in cache_scale_names(layer)]
    scales = {name: np.full(size, 0.05, np.float32) for name in names if cache_bits == 8}
    _write(folder, scales, {"none": Format(bits=32)}, {"qkv": 3 * shape.hidden}, build, **plan)


def _write(
    folder: Path,
    tensors: dict[str, NDArray[Any]],
    formats: dict[str, Format],
    inputs: Mapping[str, int],
    build: Callable[[GraphBuilder], None],
    **of_plan: Any,
) -> None:
    """The graph that `build` adds nodes to, from `inputs` (name -> width of [1, T, width]) to `result`.

    `of_plan`: what its plan says beside the groups.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors or {"none": np.zeros(1, np.float32)}, folder / "weights.safetensors")
    plan = QuantPlan(
        model_digest="none",
        importance="none",
        groups=tuple(GroupPlan(group=name, format=format_) for name, format_ in formats.items()),
        predicted_weight_bytes=0,
        predicted_artifact_bytes=0,
        predicted_resident_bytes=0,
        **of_plan,
    )
    (folder / "plan.json").write_text(plan.model_dump_json())
    data = DataFile(WEIGHTS_FILE)
    builder = GraphBuilder(QuantizedWeights(folder), data)
    build(builder)
    stored, _ = data.write(folder)
    given = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["one", "tokens", width])
        for n, width in inputs.items()
    ]
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, ["one", "tokens", None])
    model = builder.model("part_of_a_decoder", given, [result], stored)
    (folder / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))
    (folder / "weights.safetensors").unlink()
