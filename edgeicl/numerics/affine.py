"""Affine quantization of a matrix in blocks of its rows: the only place where weights become codes.

Notation: N rows, K columns, B block size. A block is B neighbours of one row, with one scale; the last one of
a row is filled up with zeros if B doesn't divide K:

    w ≈ (code - zero_point) * scale,   code in 0 .. 2**bits - 1

Symmetric blocks have the zero point 2**(bits-1), so the levels run from -2**(bits-1) to 2**(bits-1) - 1: one
more on the side that the scale's sign picks. The scale may be negative, as MatMulNBits allows, and puts the
block's extreme value on the longer side. Source: the operator definitions of com.microsoft.MatMulNBits and
GatherBlockQuantized (dequantization); the choice of scale is ours, below.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.specs.quant_plan import Format
from edgeicl.usable_cores import usable_cores

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]

# Fractions of the full range that are tried; the one of least squared error is kept. Clipping a block's
# extremes pays when levels are few: with 8 bits it gains nothing measurable, so only the full range is tried.
_RANGE_FRACTIONS = {
    2: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4),
    4: (1.0, 0.95, 0.9, 0.85, 0.8),
    8: (1.0,),
}
_CHUNK_WEIGHTS = 1 << 16  # so that the search stays in the processor's cache


@dataclass(frozen=True, eq=False)
class QuantizedMatrix:
    """A matrix as integers: what is stored, not yet packed.

    Args:
        codes: uint8 [N, K], each below 2**bits; of the weights alone, without what fills a block up.
        scales: float32 [N, ceil(K / block_size)]; finite, never 0, may be negative.
        zero_points: uint8 [N, ceil(K / block_size)], or None when all are 2**(bits-1).
    """

    codes: Codes
    scales: Floats
    zero_points: Codes | None
    bits: int
    block_size: int

    @property
    def nbytes(self) -> int:
        """Of its arrays in memory."""
        zero_points = 0 if self.zero_points is None else self.zero_points.nbytes
        return self.codes.nbytes + self.scales.nbytes + zero_points

    @property
    def filled_codes(self) -> Codes:
        """uint8 [N, blocks * block_size]: the last block filled up with codes that mean zero."""
        rows, columns = self.codes.shape
        missing = -columns % self.block_size
        if not missing:
            return self.codes
        middle = np.uint8(1 << (self.bits - 1))
        last = np.full((rows, 1), middle) if self.zero_points is None else self.zero_points[:, -1:]
        return np.concatenate([self.codes, np.repeat(last, missing, axis=1)], axis=1)


def round_to_nearest(weights: Floats, format: Format) -> QuantizedMatrix:  # noqa: A002
    """`weights` [N, K] on the nearest levels of `format`, each block with its best scale.

    For each block the full range and a few narrower ones are tried (symmetric: with either sign) and the one
    of least squared error is taken, the wider one in a tie. Weights within the range are off by at most half
    a scale. A block of zeros gets the scale 1 and the codes of zero.

    Raises:
        DataError: a weight is NaN or infinite, or the format is floating point.
    """
    if not format.quantized:
        raise DataError(f"{format} is floating point and has no codes; expected 2, 4 or 8 bits")
    rows, columns = weights.shape
    block = format.block_of(columns)
    blocks = -(-columns // block)
    codes = np.empty((rows, columns), np.uint8)
    scales = np.empty((rows, blocks), np.float32)
    zero_points = None if format.symmetric else np.empty((rows, blocks), np.uint8)
    step = max(1, _CHUNK_WEIGHTS // max(columns, 1))

    def round_rows(start: int) -> None:
        part = slice(start, start + step)
        chunk = filled_blocks(weights[part], block)
        if not np.isfinite(chunk).all():
            bad = start + int(np.argwhere(~np.isfinite(chunk))[0][0])
            raise DataError(f"row {bad} holds NaN or infinity; weights must be finite to be quantized")
        found = _symmetric(chunk, format.bits) if zero_points is None else _asymmetric(chunk, format.bits)
        codes[part] = found[0].reshape(len(chunk), -1)[:, :columns]
        scales[part] = found[1]
        if zero_points is not None:
            zero_points[part] = found[2]

    starts = range(0, rows, step)
    if len(starts) == 1:
        round_rows(0)
    else:
        with ThreadPoolExecutor(len(usable_cores())) as pool:  # numpy works outside of Python's lock
            list(pool.map(round_rows, starts))  # the first row that is refused is the one that is told
    return QuantizedMatrix(codes, scales, zero_points, format.bits, block)


def dequantize(matrix: QuantizedMatrix) -> Floats:
    """float32 [N, K]: `(code - zero_point) * scale`, in float32 as the kernels compute it."""
    rows, columns = matrix.codes.shape
    zero = (
        np.float32(1 << (matrix.bits - 1))
        if matrix.zero_points is None
        else matrix.zero_points.astype(np.float32)[..., None]
    )
    blocks: Floats = matrix.filled_codes.astype(np.float32).reshape(rows, -1, matrix.block_size)
    blocks -= zero
    blocks *= matrix.scales[..., None]
    return np.ascontiguousarray(blocks.reshape(rows, -1)[:, :columns])


def filled_blocks(weights: Floats, block_size: int) -> Floats:
    """float32 [N, blocks, B]: `weights` [N, K] in blocks, the last of a row filled up with zeros."""
    rows, columns = weights.shape
    whole: Floats = np.ascontiguousarray(weights, np.float32)
    if missing := -columns % block_size:
        whole = np.pad(whole, ((0, 0), (0, missing)))
    return whole.reshape(rows, -1, block_size)


def _symmetric(blocks: Floats, bits: int) -> tuple[Codes, Floats, Codes]:
    half = 1 << (bits - 1)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0]
    full = extreme / np.float32(-half)  # the extreme value is level -half exactly
    zero = np.full(full.shape, half, np.uint8)
    signs = (1.0, -1.0) if bits < 8 else (1.0,)
    candidates = [(full * np.float32(f * sign), zero, f) for f in _RANGE_FRACTIONS[bits] for sign in signs]
    return _least_error(blocks, bits, candidates)


def _asymmetric(blocks: Floats, bits: int) -> tuple[Codes, Floats, Codes]:
    levels = (1 << bits) - 1
    low = np.minimum(blocks.min(-1), 0)  # zero stays representable: the zero point is one of the codes
    high = np.maximum(blocks.max(-1), 0)
    full = high / np.float32(levels) - low / np.float32(levels)  # the difference itself could overflow
    zero = np.clip(np.rint(-low / _nonzero(full)), 0, levels).astype(np.uint8)
    candidates = [(full * np.float32(f), zero, f) for f in _RANGE_FRACTIONS[bits]]
    return _least_error(blocks, bits, candidates)


def _least_error(
    blocks: Floats, bits: int, candidates: list[tuple[Floats, Codes, float]]
) -> tuple[Codes, Floats, Codes]:
    """Codes, scale and zero point of each block's best candidate (scale, zero point, fraction of the range)."""
    best_scale, best_zero, _ = candidates[0]
    shifted, levels = np.empty_like(blocks), np.empty_like(blocks)  # written over and over
    if len(candidates) > 1:
        best_error = np.full(best_scale.shape, np.inf, np.float32)
        for scale, zero, fraction in candidates:
            np.divide(blocks, _nonzero(scale)[..., None], out=shifted)
            shifted -= _levels(shifted, zero, bits, out=levels)
            # errors in units of the full scale, so that huge and tiny weights neither overflow nor vanish
            error = np.einsum("nbk,nbk->nb", shifted, shifted) * np.float32(fraction * fraction)
            better = error < best_error
            best_error = np.where(better, error, best_error)
            best_scale = np.where(better, scale, best_scale)
            best_zero = np.where(better, zero, best_zero)
    best_scale = _nonzero(best_scale)
    np.divide(blocks, best_scale[..., None], out=shifted)
    _levels(shifted, best_zero, bits, out=levels)
    levels += best_zero[..., None]
    return levels.astype(np.uint8), best_scale, best_zero


def _levels(shifted: Floats, zero: Codes, bits: int, *, out: Floats) -> Floats:
    low = -zero.astype(np.float32)[..., None]
    np.rint(shifted, out=out)
    np.maximum(out, low, out=out)
    np.minimum(out, low + np.float32((1 << bits) - 1), out=out)
    return out


def _nonzero(scale: Floats) -> Floats:
    return np.where(scale == 0, np.float32(1), scale)
