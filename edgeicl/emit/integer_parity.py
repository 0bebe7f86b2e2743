"""Do the artifact's integer products compute what they should, rounding of inputs and all?

Each is taken out of the graph with its own nodes and tensors and run on inputs made for it; beside it stands a
computation in fp64 from the weights as the quantize stage stored them. Products are compared one by one, as a
whole model can't be: where an input lies halfway between two codes, the last bit decides, and behind a few
layers of such decisions two correct computations differ by as much as rounding itself does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeicl.emit.integer_product import IN_MAXIMA
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import ParityError
from edgeicl.models.anatomy import prompt_tensors
from edgeicl.numerics.affine import dequantize
from edgeicl.specs.manifest import ParityCheck

Exact = NDArray[np.float64]

TOLERANCE = 1e-5
"""Of the largest output of each product. Seen: 2e-7."""
_CODES, _RECTIFIED_CODES = 127, 255
_TOKENS = 4


def check_integer_products(
    model_path: Path, weights: QuantizedWeights, *, rectified: Collection[str], seed: int
) -> tuple[ParityCheck, ...]:
    """The product of the largest difference, relative to its largest output; nothing where there is none.

    `rectified`: groups that read what a ReLU makes of their inputs.

    Raises:
        ParityError: products that differ by more than the tolerance, all of them named.
    """
    random = np.random.default_rng(seed)
    checks = [
        _compared(tensors, _run(model, model_path.parent, inputs), _expected(weights, tensors, inputs, of_relu))
        for tensors, model in _products(onnx.load(model_path, load_external_data=False))
        for step, of_relu in [(weights.input_step(_group(tensors)), _group(tensors) in rectified)]
        for inputs in [_inputs(random, weights.shape(f"{tensors}.codes")[1], step, of_relu)]
    ]
    failed = [check for check in checks if not check.max_abs_difference <= check.tolerance]
    if failed:
        lines = [
            f"  {check.name}: outputs differ by {check.max_abs_difference:.3g}, expected at most "
            f"{check.tolerance:.3g} (largest output {check.reference_scale:.3g})"
            for check in failed
        ]
        raise ParityError(
            "\n".join([f"{model_path}: products in integers aren't what they should be:", *lines]),
            next_step="this is a defect of the compiler, or sums saturate on this processor; report it with "
            "the plan, and take the formats with block_size row out of the target",
        )
    return tuple(sorted(checks, key=lambda check: check.max_abs_difference / check.reference_scale)[-1:])


def _inputs(
    random: np.random.Generator, columns: int, step: float | None, of_relu: bool
) -> NDArray[np.float32]:
    """[1, 4, K] for one step of all tokens, or None; the last token all zeros, none halfway between two codes.

    With a step one token goes beyond what codes reach; without, magnitudes are very different. What a ReLU will
    remove is larger than all that stays.
    """
    largest = _RECTIFIED_CODES if of_relu else _CODES
    codes = random.integers(-largest, largest + 1, (_TOKENS, columns)).astype(np.float64)
    if step is None:
        codes[:, 0] = largest
        steps = np.array([1e-3, 1.0, 300.0, 0.0]) / largest
    else:
        codes = np.rint(codes * np.array([[0.1], [1.0], [1.5], [1.0]]))
        steps = np.array([step, step, step, 0.0])
    if of_relu:
        codes[:, 1] = -2 * largest
    between = random.uniform(-0.4, 0.4, codes.shape) * (np.abs(codes) < largest)
    inputs: NDArray[np.float32] = ((codes + between) * steps[:, None])[None].astype(np.float32)
    return inputs


def _expected(weights: QuantizedWeights, tensors: str, inputs: NDArray[np.float32], of_relu: bool) -> Exact:
    """[1, T, N]: each token's codes times the stored weights, plus the bias."""
    rows = inputs[0].astype(np.float64)
    lowest, largest = (0, _RECTIFIED_CODES) if of_relu else (-_CODES - 1, _CODES)
    rows = np.maximum(rows, 0.0) if of_relu else rows
    of_all = weights.input_step(_group(tensors))
    own = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-300) / largest
    steps = own if of_all is None else np.full_like(own, of_all)
    values = dequantize(weights.integer_matrix(tensors)).astype(np.float64)
    outputs: Exact = np.clip(np.rint(rows / steps), lowest, largest) @ values.T * steps
    bias = f"{_group(tensors)}.bias"
    return (outputs + (weights.tensor(bias) if weights.has(bias) else 0.0))[None]


def _group(tensors: str) -> str:
    """The group whose weights these are, or a copy of them."""
    return tensors.removeprefix(prompt_tensors(""))


def _compared(tensors: str, found: NDArray[np.float32], expected: Exact) -> ParityCheck:
    scale = float(np.abs(expected).max())
    # token by token, or the largest would hide what becomes of the others
    scales = np.maximum(np.abs(expected).max(axis=-1, keepdims=True), 1e-30)
    return ParityCheck(
        name=f"integer product, {tensors}",
        max_abs_difference=float((np.abs(found - expected) / scales).max()) * scale,
        tolerance=TOLERANCE * scale,
        reference_scale=scale,
    )


def _products(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Each integer product of the graph and of its branches as a model of its own, by its tensors' name."""
    branches = [a.g for node in model.graph.node for a in node.attribute if a.HasField("g")]
    for graph in (model.graph, *branches):
        for node in graph.node:
            if node.op_type == "MatMulIntegerToFloat":
                output = node.output[0].removesuffix(IN_MAXIMA)
                own = [one for one in graph.node if f"{one.output[0]}.".startswith(f"{output}.")]
                yield node.input[1].removesuffix(".codes"), _alone(own, output, model)


def _alone(nodes: Sequence[onnx.NodeProto], output: str, whole: onnx.ModelProto) -> onnx.ModelProto:
    """The nodes as a model, with the tensors that they read."""
    read = {name for node in nodes for name in node.input if name}
    tensors = [tensor for tensor in whole.graph.initializer if tensor.name in read]
    given = read - {tensor.name for tensor in tensors} - {name for node in nodes for name in node.output}
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None]) for name in names]
        for names in (sorted(given), [output])
    ]
    graph = helper.make_graph(nodes, "product", *ends, tensors)
    return helper.make_model(graph, ir_version=whole.ir_version, opset_imports=whole.opset_import)


def _run(model: onnx.ModelProto, folder: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    found: NDArray[np.float32] = session.run(None, {source.name: inputs})[0]
    return found
