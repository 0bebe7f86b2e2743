"""Rounding against figures on paper, bounds that must hold, and a second implementation in torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeicl.errors import DataError
from edgeicl.numerics.affine import QuantizedMatrix, dequantize, round_to_nearest
from edgeicl.numerics.hqq import half_quadratic
from edgeicl.specs.quant_plan import Format

Rounded = Callable[[np.ndarray, Format], QuantizedMatrix]


def _matrix(rows: int, columns: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def _block(*values: float, size: int = 16) -> np.ndarray:
    return np.array([[*values, *([0.0] * (size - len(values)))]], np.float32)


def test_symmetric_int8_on_paper() -> None:
    """The extreme -2 is level -128 of scale 1/64; 1 is 64 levels above zero, 0.5 is 32."""
    found = round_to_nearest(_block(-2.0, 1.0, 0.5), Format(bits=8, block_size=16))
    assert found.scales.tolist() == [[2 / 128]]
    assert found.codes[0, :4].tolist() == [0, 192, 160, 128]
    assert dequantize(found)[0, :4].tolist() == [-2.0, 1.0, 0.5, 0.0]


def test_positive_extreme_gets_a_negative_scale() -> None:
    """Level -128 is the longer side; with +2 as the extreme the scale is -1/64, and 2 is kept exactly."""
    found = round_to_nearest(_block(2.0, -1.0), Format(bits=8, block_size=16))
    assert found.scales.tolist() == [[-2 / 128]]
    assert found.codes[0, :3].tolist() == [0, 192, 128]
    assert dequantize(found)[0, :2].tolist() == [2.0, -1.0]


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_on_a_grid_are_kept_exactly(bits: int) -> None:
    half = 1 << (bits - 1)
    levels = np.arange(-half, half, dtype=np.float32) * 0.25
    found = round_to_nearest(np.resize(levels, (3, 32)), Format(bits=bits, block_size=32))
    assert dequantize(found).tolist() == np.resize(levels, (3, 32)).tolist()
    assert sorted(set(found.codes.ravel().tolist())) == list(range(1 << bits))


def test_asymmetric_int4_on_paper() -> None:
    """-1 to 2 over 15 steps: scale 0.2, zero at code 5."""
    found = round_to_nearest(_block(-1.0, 2.0, 0.4), Format(bits=4, block_size=16, symmetric=False))
    assert found.zero_points is not None
    assert found.zero_points.tolist() == [[5]]
    assert found.scales[0, 0] == pytest.approx(0.2, rel=1e-6)
    assert found.codes[0, :4].tolist() == [0, 15, 7, 5]
    assert dequantize(found)[0, :4] == pytest.approx([-1.0, 2.0, 0.4, 0.0], abs=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_asymmetric_block_of_one_sign_keeps_zero_among_its_levels(sign: float) -> None:
    found = round_to_nearest(sign * np.abs(_matrix(4, 32)), Format(bits=4, block_size=32, symmetric=False))
    assert found.zero_points is not None
    assert set(found.zero_points.ravel().tolist()) == ({0} if sign > 0 else {15})


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_all_zero_row(bits: int, symmetric: bool) -> None:
    weights = _matrix(3, 32)
    weights[1] = 0
    found = round_to_nearest(weights, Format(bits=bits, block_size=16, symmetric=symmetric))
    assert dequantize(found)[1].tolist() == [0.0] * 32
    assert found.scales[1].tolist() == [1.0, 1.0]
    assert np.isfinite(found.scales).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_row(bad: float) -> None:
    weights = _matrix(5, 32)
    weights[3, 7] = bad
    with pytest.raises(DataError, match="row 3 holds NaN or infinity"):
        round_to_nearest(weights, Format(bits=4, block_size=16))


@pytest.mark.parametrize("rounded", [round_to_nearest, half_quadratic])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_last_block_is_as_if_zeros_filled_it_up(rounded: Rounded, bits: int, symmetric: bool) -> None:
    """Rows of 44 in blocks of 32: the weights in them are those of rows of 64 that end in zeros."""
    format_ = Format.model_validate({"bits": bits, "block_size": 32, "symmetric": symmetric})
    weights = _matrix(5, 44)
    filled = rounded(np.pad(weights, ((0, 0), (0, 20))), format_)
    found = rounded(weights, format_)
    assert found.codes.shape == (5, 44)
    assert np.array_equal(found.filled_codes, filled.codes)
    assert np.array_equal(found.scales, filled.scales)
    assert np.array_equal(dequantize(found), dequantize(filled)[:, :44])
    assert not dequantize(filled)[:, 44:].any()


def test_floating_point_has_no_codes() -> None:
    with pytest.raises(DataError, match="fp16 is floating point"):
        round_to_nearest(_matrix(2, 32), Format(bits=16))


formats = st.builds(
    Format, bits=st.sampled_from([2, 4, 8]), block_size=st.sampled_from([16, 32]), symmetric=st.booleans()
)


@settings(max_examples=60, deadline=None)
@given(format_=formats, seed=st.integers(0, 99), exponent=st.integers(-30, 30))
def test_error_is_at_most_half_a_scale_within_the_range(format_: Format, seed: int, exponent: int) -> None:
    weights = _matrix(4, 64, seed=seed) * np.float32(10.0**exponent)
    found = round_to_nearest(weights, format_)
    assert int(found.codes.max()) < 1 << format_.bits
    zero = 1 << (format_.bits - 1) if found.zero_points is None else found.zero_points.astype(float)[..., None]
    scales = found.scales.astype(np.float64)[..., None]
    blocks = weights.astype(np.float64).reshape(4, -1, format_.block_size)
    ends = np.stack(np.broadcast_arrays(-zero * scales, ((1 << format_.bits) - 1 - zero) * scales))
    inside = (blocks >= ends.min(0)) & (blocks <= ends.max(0))
    error = np.abs(blocks - dequantize(found).reshape(blocks.shape))
    assert inside.mean() > 0.5
    assert (error <= np.abs(scales) * 0.5001)[inside].all()


@settings(max_examples=30, deadline=None)
@given(format_=formats, seed=st.integers(0, 99))
def test_clipped_range_is_never_worse_than_the_full_one(format_: Format, seed: int) -> None:
    weights = _matrix(4, 64, seed=seed)
    blocks = weights.reshape(4, -1, format_.block_size)
    error = np.square(dequantize(round_to_nearest(weights, format_)).reshape(blocks.shape) - blocks).sum(-1)
    assert (error <= _full_range_error(blocks, format_) * (1 + 1e-3)).all()  # fp32 sums


def test_more_bits_have_less_error_on_random_weights() -> None:
    weights = _matrix(32, 64)
    errors = [
        float(np.abs(dequantize(round_to_nearest(weights, Format(bits=b, block_size=32))) - weights).mean())
        for b in (2, 4, 8)
    ]
    assert errors[0] > 3 * errors[1]
    assert errors[1] > 10 * errors[2]


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    """Rows are worked on in parts; a part's border must not show."""
    weights = _matrix(70, 2048, seed=3)
    format_ = Format(bits=4, block_size=64)
    whole, last = round_to_nearest(weights, format_), round_to_nearest(weights[-1:], format_)
    assert whole.codes[-1].tolist() == last.codes[0].tolist()
    assert whole.scales[-1].tolist() == last.scales[0].tolist()


@pytest.mark.parametrize("symmetric", [True, False])
def test_torch_rounds_to_the_same_codes(symmetric: bool) -> None:
    """A second implementation, given the scales: nearest code, half to even, clamped."""
    weights = _matrix(8, 64, seed=5)
    found = round_to_nearest(weights, Format(bits=4, block_size=16, symmetric=symmetric))
    zero = torch.full((8, 4), 8.0) if found.zero_points is None else torch.from_numpy(found.zero_points).float()
    blocks = torch.from_numpy(weights).view(8, 4, 16)
    scales = torch.from_numpy(found.scales)[..., None]
    codes = (torch.round(blocks / scales) + zero[..., None]).clamp(0, 15)
    assert torch.equal(codes.view(8, 64).to(torch.uint8), torch.from_numpy(found.codes))
    values = ((codes - zero[..., None]) * scales).view(8, 64)
    assert torch.equal(values, torch.from_numpy(dequantize(found)))


@pytest.mark.parametrize("damage", ["zero point", "shifted block", "scale"])
def test_damage_is_seen(damage: str) -> None:
    """Negative control: what the other tests rely on does move the values by more than half a scale."""
    weights = _matrix(4, 64)
    good = round_to_nearest(weights, Format(bits=4, block_size=16, symmetric=False))
    assert good.zero_points is not None
    changed: dict[str, QuantizedMatrix] = {
        "zero point": dataclasses.replace(good, zero_points=good.zero_points ^ 1),
        "shifted block": dataclasses.replace(good, codes=np.roll(good.codes, 16, axis=1)),
        "scale": dataclasses.replace(good, scales=np.roll(good.scales, 1, axis=0)),
    }
    typical_scale = float(np.abs(good.scales).mean())
    assert np.abs(dequantize(changed[damage]) - weights).max() > 0.9 * typical_scale
    assert np.abs(dequantize(good) - weights).mean() < 0.5 * typical_scale


def _full_range_error(blocks: np.ndarray, format_: Format) -> np.ndarray:
    top = (1 << format_.bits) - 1
    if format_.symmetric:
        half = 1 << (format_.bits - 1)
        at = np.abs(blocks).argmax(-1)
        scale = np.take_along_axis(blocks, at[..., None], -1) / -half
        levels = np.clip(np.round(blocks / scale), -half, half - 1)
    else:
        low, high = np.minimum(blocks.min(-1), 0)[..., None], np.maximum(blocks.max(-1), 0)[..., None]
        scale = (high - low) / top
        zero = np.round(-low / scale)
        levels = np.clip(np.round(blocks / scale), -zero, top - zero)
    return np.square(levels * scale - blocks).sum(-1)
