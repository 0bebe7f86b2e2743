"""GPTQ: two columns on paper, its objective, and column after column by a second implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeicl.errors import DataError
from edgeicl.numerics.affine import QuantizedMatrix, dequantize, round_to_nearest
from edgeicl.numerics.gptq import DAMPENING, gptq
from edgeicl.specs.quant_plan import Format

formats = st.builds(
    Format, bits=st.sampled_from([2, 4, 8]), block_size=st.sampled_from([16, 32]), symmetric=st.booleans()
)


def _weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def _moments(columns: int, *, tokens: int = 200, directions: int = 8, seed: int = 0) -> np.ndarray:
    """Second moments of inputs that lie near a few directions, as those of a decoder do."""
    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(tokens, directions)) @ draw.normal(size=(directions, columns))
    inputs += 0.3 * draw.normal(size=inputs.shape)
    return np.asarray(inputs.T @ inputs / tokens)


def _dampened(moments: np.ndarray) -> np.ndarray:
    return np.asarray(moments + DAMPENING * np.diag(moments).mean() * np.eye(len(moments)))


def _objective(matrix: QuantizedMatrix, weights: np.ndarray, moments: np.ndarray) -> np.ndarray:
    error = dequantize(matrix).astype(np.float64) - weights
    return np.einsum("nk,kl,nl->n", error, moments, error)


def test_the_second_of_two_like_columns_makes_good_what_the_first_lost() -> None:
    """Scale 1. The first 0.4 goes to 0; the best second weight is then 0.4 + 0.4 * 0.99 / 1.01 = 0.79, so 1."""
    weights = np.array([[0.4, 0.4] + [0.0] * 13 + [-2.0]], np.float32)
    moments = np.eye(16)
    moments[0, 1] = moments[1, 0] = 0.99
    format_ = Format(bits=2, block_size=16)
    assert dequantize(round_to_nearest(weights, format_))[0].tolist() == [0, 0] + [0] * 13 + [-2]
    assert dequantize(gptq(weights, format_, moments))[0].tolist() == [0, 1] + [0] * 13 + [-2]


@settings(max_examples=30, deadline=None)
@given(format_=formats, seed=st.integers(0, 99))
def test_independent_inputs_leave_nothing_to_make_good(format_: Format, seed: int) -> None:
    weights = _weights(5, 64, seed)
    nearest = round_to_nearest(weights, format_)
    for moments in (np.eye(64) * 7.0, np.zeros((64, 64))):
        found = gptq(weights, format_, moments)
        assert np.array_equal(found.codes, nearest.codes)
        assert np.array_equal(found.scales, nearest.scales)


@settings(max_examples=40, deadline=None)
@given(format_=formats, seed=st.integers(0, 99), tokens=st.sampled_from([3, 40, 500]))
def test_no_row_is_worse_than_rounded_to_nearest(format_: Format, seed: int, tokens: int) -> None:
    weights = _weights(7, 64, seed)
    moments = _dampened(_moments(64, tokens=tokens, seed=seed))
    found = gptq(weights, format_, _moments(64, tokens=tokens, seed=seed))
    assert int(found.codes.max()) < 1 << format_.bits
    before = _objective(round_to_nearest(weights, format_), weights, moments)
    assert (_objective(found, weights, moments) <= before * (1 + 1e-9)).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_outputs_for_inputs_alike_are_far_closer(bits: int, symmetric: bool) -> None:
    weights, moments = _weights(64, 128), _moments(128)
    format_ = Format(bits=bits, block_size=32, symmetric=symmetric)
    nearest = _objective(round_to_nearest(weights, format_), weights, moments).sum()
    assert _objective(gptq(weights, format_, moments), weights, moments).sum() < 0.5 * nearest
    of_others = _objective(gptq(weights, format_, _moments(128, seed=9)), weights, moments).sum()
    assert of_others > 0.5 * nearest  # negative control: the inputs matter


@pytest.mark.parametrize("symmetric", [True, False])
def test_updates_by_the_inverse_itself_give_the_same_codes(symmetric: bool) -> None:
    """A second implementation, in fp64: after each column the inverse of what is left, computed anew."""
    format_ = Format(bits=4, block_size=16, symmetric=symmetric)
    weights, moments = _weights(12, 48, seed=4), _moments(48, seed=4)
    codes = np.zeros(weights.shape)
    rest, left = weights.astype(np.float64), _dampened(moments)
    for column in range(48):
        if column % 16 == 0:
            block = round_to_nearest(rest[:, column : column + 16].astype(np.float32), format_)
            scale = block.scales[:, 0].astype(np.float64)
            zero = np.full(12, 8.0) if block.zero_points is None else block.zero_points[:, 0].astype(float)
        codes[:, column] = np.clip(np.rint(rest[:, column] / scale) + zero, 0, 15)
        error = rest[:, column] - (codes[:, column] - zero) * scale
        inverse = np.linalg.inv(left)
        rest[:, column:] -= np.outer(error, inverse[0] / inverse[0, 0])
        left = left[1:, 1:]
    found = gptq(weights, format_, moments)
    assert (found.codes != round_to_nearest(weights, format_).codes).mean() > 0.1
    assert (found.codes == codes).mean() > 0.99  # a tie of fp32 may fall the other way


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    """Rows are worked on in parts; a part's border must not show."""
    weights, moments = _weights(2100, 32), _moments(32)
    format_ = Format(bits=4, block_size=16)
    whole, last = gptq(weights, format_, moments), gptq(weights[-60:], format_, moments)
    assert (whole.codes[-60:] == last.codes).mean() > 0.999  # sums of another order


@pytest.mark.parametrize("moments", [np.eye(31), np.full((32, 32), np.nan)])
def test_moments_that_can_not_be_are_refused(moments: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected \(32, 32\), all finite"):
        gptq(_weights(2, 32), Format(bits=4, block_size=16), moments)
