"""Half-quadratic quantization: scales and zero points for which few weights are badly off.

Badri & Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models". Squared error lets a few
outliers pull a block's scale; HQQ minimizes

    sum over a block's weights of |w - ŵ|**p,   p = 0.7,   ŵ = (code - zero_point) * scale

by splitting the error off as a variable e of its own, and solving for one after the other:

    e          <- shrink(w - ŵ):  sign(x) * max(|x| - |x|**(p - 1) / beta, 0), beta rising by kappa
    zero_point <- mean(code - (w - e) / scale), rounded to one of the codes
    scale      <- <level, w - e> / <level, level>, level = code - zero_point
    code       <- nearest to w

The paper moves zero points alone and leaves them real numbers. MatMulNBits reads them as codes, so that most
steps would move nothing: the scale's closed form is ours, and all that is left to a symmetric block. Errors
are in units of the block's first scale, so that beta means the same for weights of any magnitude.
"""

from __future__ import annotations

import numpy as np

from edgeicl.numerics.affine import Codes, Floats, QuantizedMatrix, filled_blocks, round_to_nearest
from edgeicl.specs.quant_plan import Format

# As the authors' code and onnxruntime's quantizer have them.
EXPONENT = 0.7
_BETA = 10.0
_KAPPA = 1.01
_ITERATIONS = 20

_CHUNK_WEIGHTS = 1 << 16  # so that an iteration stays in the processor's cache
_LEAST_ERROR = np.float32(1e-12)  # of a scale; below it an error is none, and its power would be infinite


def half_quadratic(weights: Floats, format: Format) -> QuantizedMatrix:  # noqa: A002
    """`weights` [N, K] in `format`, each block at the least sum of |error|**0.7 found.

    The search starts from `round_to_nearest`, and a block changes only where it gets better: none is worse.

    Raises:
        DataError: as `round_to_nearest`.
    """
    start = round_to_nearest(weights, format)
    rows, columns = weights.shape
    size, bits = start.block_size, start.bits
    blocks = filled_blocks(weights, size).reshape(-1, size)
    codes = start.filled_codes.reshape(-1, size)
    scales = start.scales.reshape(-1)
    zero_points = (
        np.full(scales.shape, 1 << (bits - 1), np.uint8)
        if start.zero_points is None
        else start.zero_points.reshape(-1)
    )
    step = max(1, _CHUNK_WEIGHTS // size)
    for first in range(0, len(blocks), step):
        part = slice(first, first + step)
        codes[part], scales[part], zero_points[part] = _improved(
            blocks[part], codes[part], scales[part], zero_points[part], bits, fixed_zero=format.symmetric
        )
    shape = start.scales.shape
    return QuantizedMatrix(
        np.ascontiguousarray(codes.reshape(rows, -1)[:, :columns]),
        scales.reshape(shape),
        None if format.symmetric else zero_points.reshape(shape),
        bits,
        size,
    )


def _improved(
    blocks: Floats, codes: Codes, scales: Floats, zero_points: Codes, bits: int, *, fixed_zero: bool
) -> tuple[Codes, Floats, Codes]:
    """Codes [n, B], scales [n] and zero points [n] of each block's least objective, the start's in a tie.

    A block is left as it is after the first step that doesn't make it better.
    """
    top = np.float32((1 << bits) - 1)
    weights = blocks / scales[:, None]  # in units of the first scale, which is 1 from here on
    scale = np.ones(len(blocks), np.float32)
    zero = zero_points.astype(np.float32)
    code = codes.astype(np.float32)
    best_code, best_scale, best_zero = code.copy(), scale.copy(), zero.copy()
    least = np.full(len(blocks), np.inf, np.float32)
    left = np.arange(len(blocks))
    beta = _BETA
    for _ in range(_ITERATIONS + 1):
        error = weights - (code - zero[:, None]) * scale[:, None]
        size = np.maximum(np.abs(error), _LEAST_ERROR)
        power = size ** np.float32(EXPONENT - 1)
        objective = (size * power).sum(-1)
        better = objective < least
        if not better.any():
            break
        left, least = left[better], objective[better]
        best_code[left], best_scale[left], best_zero[left] = code[better], scale[better], zero[better]
        weights, error, size, power = weights[better], error[better], size[better], power[better]
        code, scale, zero = code[better], scale[better], zero[better]
        target = weights - np.sign(error) * np.maximum(size - power / np.float32(beta), 0)
        if not fixed_zero:
            zero = np.clip(np.rint((code - target / scale[:, None]).mean(-1)), 0, top)
        level = code - zero[:, None]
        energy = np.einsum("nb,nb->n", level, level)
        fitted = np.einsum("nb,nb->n", level, target) / np.where(energy == 0, np.float32(1), energy)
        scale = np.where(fitted == 0, scale, fitted)
        code = np.clip(np.rint(weights / scale[:, None]) + zero[:, None], 0, top)
        beta *= _KAPPA
    return best_code.astype(np.uint8), best_scale * scales, best_zero.astype(np.uint8)
