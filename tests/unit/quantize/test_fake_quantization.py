"""Weights in training: values and gradients on paper, and the rounding of the artifact's own format."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeicl.numerics.affine import QuantizedMatrix, dequantize, round_to_nearest
from edgeicl.quantize.fake_quantization import FakeQuantized
from edgeicl.specs.quant_plan import Format

CPU = torch.device("cpu")
FORMATS = [
    Format(bits=bits, block_size=16, symmetric=symmetric)  # type: ignore[arg-type]
    for bits in (2, 4, 8)
    for symmetric in (True, False)
]


def drawn(rows: int = 6, columns: int = 48) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


def on_paper() -> FakeQuantized:
    """One block in 2 bits: levels -2 to 1, a scale of 0.5, weights of 1.2, -0.4, -2.8 and 1.8 scales."""
    codes = np.array([[3, 2, 0, 3]], np.uint8)
    stored = QuantizedMatrix(codes, np.array([[0.5]], np.float32), None, 2, 4)
    made = FakeQuantized(np.array([[0.6, -0.2, -1.4, 0.9]], np.float32), stored, device=CPU)
    with torch.no_grad():
        made.weights.copy_(torch.tensor([[[1.2, -0.4, -2.8, 1.8]]]))
    return made


def test_values_and_gradients_on_paper() -> None:
    """Levels are 1, 0, -2 and 1. Only the second weight is not clamped, and moves a value by 0.5 a scale.

    A scale's gradient is 1, 0 + 0.4, -2 and 1, in all 0.4; of the exponent, times the scale.
    """
    made = on_paper()
    assert made.values().tolist() == [[0.5, 0.0, -1.0, 0.5]]
    made.values().sum().backward()
    assert made.weights.grad is not None
    assert made.exponents.grad is not None
    assert made.weights.grad.flatten().tolist() == [0.0, 0.5, 0.0, 0.0]
    assert made.exponents.grad.item() == pytest.approx(0.4 * 0.5)
    assert made.stored().codes.tolist() == [[3, 2, 0, 3]]


def test_a_scale_that_grew_takes_its_weights_to_other_levels() -> None:
    """Twice the scale: the weights are 0.6, -0.2, -1.4 and 0.9 of it, on the levels 1, 0, -1 and 1."""
    made = on_paper()
    with torch.no_grad():
        made.exponents.fill_(float(np.log(2)))
    assert made.values().flatten().tolist() == pytest.approx([1.0, 0.0, -1.0, 1.0])
    assert made.stored().scales.item() == pytest.approx(1.0)


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_training_starts_with_what_was_stored(format_: Format) -> None:
    """To the bit; also where a solver has chosen other levels than the nearest."""
    stored = round_to_nearest(drawn(), format_)
    moved = stored.codes ^ (np.random.default_rng(1).random(stored.codes.shape) < 0.2).astype(np.uint8)
    for codes in (stored.codes, moved):
        start = QuantizedMatrix(codes, stored.scales, stored.zero_points, stored.bits, stored.block_size)
        made = FakeQuantized(drawn(), start, device=CPU)
        assert np.array_equal(made.values().detach().numpy(), dequantize(start))
        assert np.array_equal(made.stored().codes, codes)
        assert np.array_equal(made.stored().scales, stored.scales)


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_after_training_the_artifact_holds_what_was_computed(format_: Format) -> None:
    """Codes, scales and zero points read again, and the codes by numpy from weights and scales."""
    made = FakeQuantized(drawn(), round_to_nearest(drawn(), format_), device=CPU)
    torch.manual_seed(0)
    with torch.no_grad():
        made.weights.add_(torch.randn_like(made.weights))
        made.exponents.add_(0.3 * torch.randn_like(made.exponents))
    found = made.stored()
    assert np.array_equal(dequantize(found), made.values().detach().numpy())
    zero = 1 << (format_.bits - 1) if found.zero_points is None else found.zero_points[..., None].astype(int)
    exact = made.weights.detach().numpy() * np.exp(-made.exponents.detach().numpy())
    codes = np.clip(np.rint(exact) + zero, 0, (1 << format_.bits) - 1).reshape(found.codes.shape)
    assert (codes != found.codes).mean() < 1e-3  # the two exponential functions differ in a last bit
    assert (found.codes != round_to_nearest(drawn(), format_).codes).any()


def test_a_last_block_that_is_cut_short() -> None:
    """Six columns in blocks of 4: the second block has two, and two that are nowhere read."""
    codes = np.array([[3, 2, 0, 3, 1, 3]], np.uint8)
    stored = QuantizedMatrix(codes, np.array([[0.5, 2.0]], np.float32), None, 2, 4)
    made = FakeQuantized(np.zeros((1, 6), np.float32), stored, device=CPU)
    assert made.values().tolist() == [[0.5, 0.0, -1.0, 0.5, -2.0, 2.0]]
    assert np.array_equal(made.stored().codes, codes)
