"""Weights as onnxruntime's own quantizers store them.

Each matrix is rounded in a model of this matrix alone, whose product with the unit matrix is what onnxruntime's
kernel reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

from edgeicl.specs.quant_plan import Format

Floats = NDArray[np.float32]
Quantizer = Callable[[onnx.ModelProto], MatMulNBitsQuantizer]


def rounded_by(quantizer: Quantizer, matrix: Floats) -> Floats:
    """`matrix` [N, K] as onnxruntime's quantizer stores it and its kernel reads it again."""
    rows, columns = matrix.shape
    weight = onnx.numpy_helper.from_array(np.ascontiguousarray(matrix.T), "w")
    info = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "one",
        [info("x", shape=[columns, columns])],
        [info("y", shape=[columns, rows])],
        [weight],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    working = quantizer(made)
    working.process()
    session = onnxruntime.InferenceSession(
        working.model.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    unit = np.eye(columns, dtype=np.float32)
    return np.ascontiguousarray(np.asarray(session.run(None, {"x": unit})[0], np.float32).T)


def _default(model: onnx.ModelProto, *, bits: int, block: int, symmetric: bool) -> MatMulNBitsQuantizer:
    config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=symmetric, bits=bits)
    return MatMulNBitsQuantizer(model, bits=bits, block_size=block, is_symmetric=symmetric, algo_config=config)


def _k_quant(model: onnx.ModelProto, *, bits: int, block: int) -> MatMulNBitsQuantizer:
    named: dict[str, Any] = {"product": {"bits": bits, "group_size": block}}
    config = KQuantWeightOnlyQuantConfig(customized_weight_config=named)
    return MatMulNBitsQuantizer(model, bits=bits, block_size=block, algo_config=config)


def _hqq(model: onnx.ModelProto, *, bits: int, block: int) -> MatMulNBitsQuantizer:
    config = HQQWeightOnlyQuantConfig(block_size=block, bits=bits)
    return MatMulNBitsQuantizer(model, bits=bits, block_size=block, algo_config=config)


def quantizers(offered: Sequence[Format]) -> dict[str, list[tuple[Format, Quantizer]]]:
    """Quantizer -> formats of those offered that it may store.

    Its HQQ stores zero points in fp32; here they count as packed.
    """
    return {
        "onnxruntime, default": [
            (f, partial(_default, bits=f.bits, block=f.block_size or 0, symmetric=f.symmetric))
            for f in offered
            if f.bits in (4, 8)
        ],
        "onnxruntime, k-quant": [
            (f, partial(_k_quant, bits=f.bits, block=f.block_size or 0))
            for f in offered
            if f.bits in (4, 8) and not f.symmetric
        ],
        "onnxruntime, HQQ": [
            (f, partial(_hqq, bits=f.bits, block=f.block_size or 0))
            for f in offered
            if f.bits == 4 and not f.symmetric
        ],
    }
