"""The artifact's own graph, changed in one respect for a check or for work at compile time."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edgeicl.emit.cache_graph import CACHE_ZERO
from edgeicl.emit.integer_product import RECTIFIED_ZERO
from edgeicl.errors import ParityError

EMBEDDED = "tokens"
"""The value of the graph that holds the token embeddings [B, T, H], before positions are added."""


def with_exact_activations(model: bytes) -> bytes:
    """The same graph with everything computed in fp32, from the numbers that are stored.

    Keys and values too are fp32 then, unless they are integers.
    """
    proto = onnx.ModelProto.FromString(model)
    _compute_in_fp32(proto.graph)
    _make_exact(proto.graph)
    return _bytes(proto)


def _make_exact(graph: onnx.GraphProto) -> None:
    for node in list(graph.node):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _make_exact(attribute.g)
        if node.op_type == "MatMulNBits":
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = 0
        if node.op_type == "QuantizeLinear" and node.input[2] != CACHE_ZERO:
            # its input, or a token's shares of its largest magnitude
            of_relu = node.input[2] == RECTIFIED_ZERO
            _replace(node, "Relu" if of_relu else "Identity", [node.input[0]])
        if node.op_type == "MatMulIntegerToFloat":
            inputs, codes, _, scales = node.input[:4]
            levels, values = f"{codes}.levels", f"{codes}.values"
            if bias := node.input[6:]:
                product = f"{node.output[0]}.product"
                place = list(graph.node).index(node)
                graph.node.insert(place + 1, helper.make_node("Add", [product, *bias], [node.output[0]]))
                node.output[0] = product
            _replace(node, "MatMul", [inputs, values])
            # not DequantizeLinear: the runtime would make a product with rounded inputs of it again
            graph.node.insert(0, helper.make_node("Mul", [levels, scales], [values]))
            graph.node.insert(0, helper.make_node("Cast", [codes], [levels], to=TensorProto.FLOAT))


def _replace(node: onnx.NodeProto, operator: str, inputs: list[str]) -> None:
    """Makes the node another one, of ONNX's own operators and without attributes, with the same output."""
    node.op_type, node.domain = operator, ""
    node.input[:] = inputs
    del node.attribute[:]


def with_vectors_for_tokens(model: bytes) -> bytes:
    """The same graph with an input `tokens` [B, T, H] in the place of token embeddings.

    `input_ids` stays an input, for its shape alone.
    """
    proto = onnx.ModelProto.FromString(model)
    looked_up = [node for node in proto.graph.node if EMBEDDED in node.output]
    if len(looked_up) != 1:
        raise ParityError(f"the graph has {len(looked_up)} nodes that make {EMBEDDED!r}; expected 1")
    proto.graph.node.remove(looked_up[0])
    proto.graph.input.append(
        helper.make_tensor_value_info(EMBEDDED, TensorProto.FLOAT, ["batch", "tokens", None])
    )
    return _bytes(proto)


def _compute_in_fp32(graph: onnx.GraphProto) -> None:
    """What is fp16 becomes fp32; a stored tensor by a cast, which the runtime folds when it loads the graph."""
    halves = [stored.name for stored in graph.initializer if stored.data_type == TensorProto.FLOAT16]
    widened = {name: f"{name}.in_fp32" for name in halves}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = widened.get(name, name)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    nodes = list(graph.node)
    graph.ClearField("node")
    graph.node.extend(
        helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT) for name, wide in widened.items()
    )
    graph.node.extend(nodes)


def _bytes(proto: onnx.ModelProto) -> bytes:
    changed: bytes = proto.SerializeToString(deterministic=True)
    return changed
