"""GPTQ: weights rounded column by column, each column's error made good by those that are still to come.

Frantar et al., arXiv 2210.17323. For inputs x of a matrix W it looks for the codes of least

    sum over rows w of W of (w - ŵ) H (w - ŵ)ᵀ,   H = mean of x xᵀ over the calibration tokens,

which is the mean squared error of the matrix's outputs. H is dampened by a share of its mean diagonal, so that
inputs that the calibration texts never used are rounded to nearest rather than changed at will.

Columns are taken in their order: a block of a format is neighbours of a row, and its scale is chosen, as
`round_to_nearest` does, when the block is reached. Ordering columns by their activation, as the authors'
later code can, would need blocks of columns that aren't neighbours, which MatMulNBits doesn't have.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtri

from edgeicl.errors import DataError
from edgeicl.numerics.affine import Codes, Floats, QuantizedMatrix, dequantize, round_to_nearest
from edgeicl.specs.quant_plan import Format

Moments = NDArray[np.float64]

DAMPENING = 0.01
_CHUNK_ROWS = 2048  # so that a block of all of them stays in the processor's cache


def gptq(
    weights: Floats,
    format: Format,  # noqa: A002
    moments: Moments,
    *,
    dampening: float = DAMPENING,
) -> QuantizedMatrix:
    """`weights` [N, K] in `format`, for inputs of the second moments `moments` [K, K], H above.

    A row that came out worse than rounded to nearest, by the sum above with H dampened, is rounded to nearest.

    Raises:
        DataError: moments of another shape or not finite, or as `round_to_nearest`.
    """
    best = round_to_nearest(weights, format)
    columns = weights.shape[1]
    if moments.shape != (columns, columns) or not np.isfinite(moments).all():
        raise DataError(f"second moments of shape {moments.shape}; expected {(columns, columns)}, all finite")
    dampened = moments + np.eye(columns) * (dampening * float(np.trace(moments)) / columns or 1.0)
    factor = _inverse_factor(dampened)
    for first in range(0, len(weights), _CHUNK_ROWS):
        part = slice(first, first + _CHUNK_ROWS)
        rows = np.ascontiguousarray(weights[part], np.float32)
        nearest = _rows(best, part)
        found = _corrected(rows, format, factor.astype(np.float32))
        better = _error(found, rows, dampened) < _error(nearest, rows, dampened)
        nearest.codes[better] = found.codes[better]
        nearest.scales[better] = found.scales[better]
        if nearest.zero_points is not None and found.zero_points is not None:
            nearest.zero_points[better] = found.zero_points[better]
    return best


def _corrected(weights: Floats, format_: Format, factor: Floats) -> QuantizedMatrix:
    """Every row of `weights` with errors passed on to later columns by `factor` U, H⁻¹ = Uᵀ U."""
    size = format_.block_size or 1
    rest = weights.T.copy()  # column by column
    top = np.float32((1 << format_.bits) - 1)
    codes = np.empty(rest.shape, np.uint8)
    scales, zero_points = [], []
    for start in range(0, len(rest), size):
        end = min(start + size, len(rest))
        block = round_to_nearest(rest[start:end].T, format_)
        scale = block.scales[:, 0]
        scales.append(scale)
        zero: Codes | np.float32 = np.float32(1 << (format_.bits - 1))
        if block.zero_points is not None:
            zero = block.zero_points[:, 0]
            zero_points.append(zero)
        errors = np.empty((end - start, rest.shape[1]), np.float32)
        for column in range(start, end):
            code = np.clip(np.rint(rest[column] / scale) + zero, 0, top)
            codes[column] = code
            error = (rest[column] - (code - zero) * scale) / factor[column, column]
            rest[column + 1 : end] -= factor[column, column + 1 : end, None] * error
            errors[column - start] = error
        rest[end:] -= factor[start:end, end:].T @ errors
    return QuantizedMatrix(
        np.ascontiguousarray(codes.T),
        np.stack(scales, axis=1),
        None if format_.symmetric else np.stack(zero_points, axis=1),
        format_.bits,
        size,
    )


def _inverse_factor(moments: Moments) -> Moments:
    """The upper triangular U with moments⁻¹ = Uᵀ U.

    The Cholesky factor of the moments with rows and columns turned round is, turned back, an upper triangular
    R with moments = R Rᵀ; U is its inverse. No inverse of the moments themselves is needed.
    """
    lower, failed = dpotrf(moments[::-1, ::-1], lower=1, clean=1)
    if failed:
        raise DataError(
            "the second moments of the calibration inputs are not positive definite",
            next_step="use more or other calibration examples, or another solver",
        )
    inverse, _ = dtrtri(lower, lower=1)
    return np.ascontiguousarray(inverse[::-1, ::-1])


def _rows(matrix: QuantizedMatrix, part: slice) -> QuantizedMatrix:
    """Rows of `matrix`, as views."""
    zero_points = None if matrix.zero_points is None else matrix.zero_points[part]
    return QuantizedMatrix(matrix.codes[part], matrix.scales[part], zero_points, matrix.bits, matrix.block_size)


def _error(matrix: QuantizedMatrix, weights: Floats, moments: Moments) -> Moments:
    """(w - ŵ) H (w - ŵ)ᵀ of every row."""
    error = (dequantize(matrix) - weights).astype(np.float64)
    return np.asarray(np.einsum("nk,nk->n", error @ moments, error))
