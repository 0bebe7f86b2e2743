"""A product in integers: int8 weights with a scale for each row, inputs rounded to 8 bits.

For inputs x [..., K] and weights of codes C [N, K] and scales s [N], either in one step d for all tokens, where
the quantize stage found one,

    q = round(x / d),   y = d * s * (q Cᵀ)

or with a scale of each token's own (token-wise quantization: ZeroQuant, arXiv 2206.01861, section 4.1):

    m = max |x| of each token,   q = round(127 x / m),   y = m / 127 * s * (q Cᵀ)

Where x is to go through a ReLU, codes are from 0 to 255, and m is divided into as many: rounding makes 0 of
what is negative, so that the ReLU needs no node of its own.

Either way what comes out doesn't depend on what is read beside a token: other rows of a batch, padding, or
earlier tokens. DynamicQuantizeMatMul is one node for it, but has one scale for whatever is read at once, which
one token with large activations spoils: docs/decisions/0014-integer-products.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeicl.emit.opsets import FUSED
from edgeicl.models.anatomy import input_step_name

if TYPE_CHECKING:
    from edgeicl.emit.graph import GraphBuilder

IN_MAXIMA = ".in_maxima"
"""Ends the name of what the kernel gives: outputs in units of each token's largest input."""
_LARGEST_CODE = 127
_LARGEST_RECTIFIED_CODE = 255
_ZERO_CODE = 128  # of the inputs, which the kernel wants unsigned
RECTIFIED_ZERO = "rectified_zero"
"""The code 0 of inputs that come out of a ReLU."""
_SMALLEST_MAXIMUM = 1e-30  # so that a token of zeros is divided by something


def integer_product(
    builder: GraphBuilder, source: str, group: str, output: str, bias: str | None, *, tensors: str,
    rectified: bool = False,
) -> str:  # fmt: skip
    """Nodes for `source` [..., K] times the group's weights [N, K] transposed, plus `bias` -> [..., N].

    `tensors` is what the names of its codes and scales start with; `rectified`: the product is of what a ReLU
    makes of `source`.
    """
    node, constant, weights = builder.node, builder.constant, builder.weights
    n, k = weights.shape(f"{tensors}.codes")
    codes = builder.data.add(
        f"{tensors}.codes", (k, n), np.int8,
        lambda: (weights.tensor(f"{tensors}.codes").astype(np.int16) - _ZERO_CODE).astype(np.int8).T,
        group=group,
    )  # fmt: skip
    scales = builder.data.add(
        f"{tensors}.scales", (n,), np.float32, lambda: weights.tensor(f"{tensors}.scales")[:, 0], group=group
    )
    if rectified:
        zero, largest_code = constant(RECTIFIED_ZERO, 0, np.uint8), _LARGEST_RECTIFIED_CODE
    else:
        zero, largest_code = constant("input_zero", _ZERO_CODE, np.uint8), _LARGEST_CODE
    if (input_step := weights.input_step(group)) is not None:
        of_all = constant(input_step_name(group), input_step, np.float32)
        node("QuantizeLinear", [source, of_all, zero], [f"{output}.inputs"])
        inputs = [f"{output}.inputs", codes, of_all, scales, zero, *(["", bias] if bias else [])]
        return node("MatMulIntegerToFloat", inputs, [output], domain=FUSED)
    step = constant(f"input_step_of_{largest_code}", 1 / largest_code, np.float32)
    magnitudes = source if rectified else node("Abs", [source], [f"{output}.magnitudes"])
    node("ReduceMax", [magnitudes, constant("last_axis", [-1])], [f"{output}.largest"])
    least = constant("smallest_maximum", _SMALLEST_MAXIMUM, np.float32)
    node("Max", [f"{output}.largest", least], [f"{output}.maxima"])  # [..., 1]
    node("Div", [source, f"{output}.maxima"], [f"{output}.shares"])
    node("QuantizeLinear", [f"{output}.shares", step, zero], [f"{output}.inputs"])
    inputs = [f"{output}.inputs", codes, step, scales, zero]
    node("MatMulIntegerToFloat", inputs, [f"{output}{IN_MAXIMA}"], domain=FUSED)
    product = f"{output}.product" if bias is not None else output
    node("Mul", [f"{output}{IN_MAXIMA}", f"{output}.maxima"], [product])
    return product if bias is None else node("Add", [product, bias], [output])
