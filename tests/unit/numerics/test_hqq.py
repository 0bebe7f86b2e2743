"""Half-quadratic quantization: a block on paper, its objective, and steps by a second implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeicl.errors import DataError
from edgeicl.numerics.affine import QuantizedMatrix, dequantize, round_to_nearest
from edgeicl.numerics.hqq import half_quadratic
from edgeicl.specs.quant_plan import Format

formats = st.builds(
    Format, bits=st.sampled_from([2, 4, 8]), block_size=st.sampled_from([16, 32]), symmetric=st.booleans()
)


def _matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Weights with the heavy tails that the method is made for."""
    return np.random.default_rng(seed).standard_t(3, (rows, columns)).astype(np.float32)


def _objective(matrix: QuantizedMatrix, weights: np.ndarray) -> np.ndarray:
    """Sum of |error|**0.7 of every block, in fp64."""
    error = np.abs(dequantize(matrix).astype(np.float64) - weights)
    return (error**0.7).reshape(len(weights), -1, matrix.block_size).sum(-1)


@settings(max_examples=60, deadline=None)
@given(format_=formats, seed=st.integers(0, 99), exponent=st.integers(-30, 30))
def test_no_block_is_worse_than_rounded_to_nearest(format_: Format, seed: int, exponent: int) -> None:
    weights = _matrix(6, 64, seed) * np.float32(10.0**exponent)
    found = half_quadratic(weights, format_)
    assert int(found.codes.max()) < 1 << format_.bits
    assert np.isfinite(found.scales).all()
    assert (found.scales != 0).all()
    assert (found.zero_points is None) == format_.symmetric
    before = _objective(round_to_nearest(weights, format_), weights)
    assert (_objective(found, weights) <= before * (1 + 1e-3)).all()  # fp32 sums, and scales rounded once more


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "at_most"), [(2, 0.96), (4, 0.99), (8, 0.995)])
def test_heavy_tails_are_rounded_better(bits: int, symmetric: bool, at_most: float) -> None:
    weights = _matrix(128, 128)
    format_ = Format(bits=bits, block_size=32, symmetric=symmetric)
    before = _objective(round_to_nearest(weights, format_), weights).sum()
    assert _objective(half_quadratic(weights, format_), weights).sum() < at_most * before


def test_one_outlier_pulls_the_scale_less() -> None:
    """15 weights on the levels of the scale 1, and one at -2.6, where the nearest level is -2.

    Least squares pays for it with every other weight: (2 * 2.6 + 10) / (4 + 10) = 1.086. Shrinking leaves
    x**-0.3 / beta of its error x = 0.6, that is 0.117 to 0.096 for beta 10 to 12.2: with a weight at
    -2 * scale - 0.1 the scale is (2 * (2 * scale + 0.1) + 10) / 14, so 1.02.
    """
    weights = np.array([[-2.6] + [-1, 0, 1] * 5], np.float32)
    found = half_quadratic(weights, Format(bits=2, block_size=16))
    assert found.codes[0].tolist() == [0] + [1, 2, 3] * 5
    assert float(found.scales[0, 0]) == pytest.approx(1.02, abs=0.004)
    objective = 10 * 0.02**0.7 + 0.56**0.7
    assert float(_objective(found, weights)[0, 0]) == pytest.approx(objective, rel=0.05)
    least_squares = 10 * 0.086**0.7 + 0.43**0.7
    assert objective < 0.6 * least_squares


@settings(max_examples=30, deadline=None)
@given(format_=formats, seed=st.integers(0, 99), power=st.integers(-20, 20))
def test_weights_of_any_magnitude_have_the_same_codes(format_: Format, seed: int, power: int) -> None:
    """Powers of two are exact: the steps can't depend on the unit."""
    weights = _matrix(3, 32, seed)
    one, other = half_quadratic(weights, format_), half_quadratic(weights * np.float32(2.0**power), format_)
    assert np.array_equal(one.codes, other.codes)
    assert np.array_equal(one.scales * np.float32(2.0**power), other.scales)


def test_a_block_of_zeros_stays_one() -> None:
    for symmetric in (True, False):
        found = half_quadratic(
            np.zeros((2, 32), np.float32), Format(bits=4, block_size=16, symmetric=symmetric)
        )
        assert not dequantize(found).any()
        assert (found.scales == 1).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_torch_takes_the_same_steps(symmetric: bool) -> None:
    """A second implementation, block by block in fp64, with the equations as they stand in the docstring."""
    format_ = Format(bits=4, block_size=16, symmetric=symmetric)
    weights = _matrix(8, 64, seed=7)
    start = round_to_nearest(weights, format_)
    expected = []
    for row in range(8):
        for block in range(4):
            part = slice(16 * block, 16 * block + 16)
            zero = 8.0 if start.zero_points is None else float(start.zero_points[row, block])
            expected.append(
                _alternated(
                    torch.from_numpy(weights[row, part]).double(),
                    torch.from_numpy(start.codes[row, part]).double(),
                    float(start.scales[row, block]),
                    zero,
                    moves_zero=not symmetric,
                )
            )
    found = _objective(half_quadratic(weights, format_), weights).ravel()
    assert found == pytest.approx(expected, rel=1e-3)


def _alternated(
    weights: torch.Tensor, code: torch.Tensor, scale: float, zero: float, *, moves_zero: bool
) -> float:
    unit, beta, best = scale, 10.0, math.inf
    for _ in range(21):
        error = weights - (code - zero) * scale
        objective = float(error.abs().pow(0.7).sum())
        if objective >= best:
            return min(best, objective)
        best = objective
        x = error / unit
        kept = torch.where(x == 0, 0, x.sign() * (x.abs() - x.abs().pow(-0.3) / beta).clamp(min=0))
        target = weights - kept * unit
        if moves_zero:
            zero = min(max(float(torch.round((code - target / scale).mean())), 0.0), 15.0)
        level = code - zero
        scale = float(level @ target / (level @ level))
        code = (torch.round(weights / scale) + zero).clamp(0, 15)
        beta *= 1.01
    return best


def test_what_round_to_nearest_refuses_is_refused() -> None:
    with pytest.raises(DataError, match="fp16 is floating point"):
        half_quadratic(_matrix(2, 48), Format(bits=16))
