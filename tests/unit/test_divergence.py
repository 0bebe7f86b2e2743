"""KL and log-softmax against figures on paper and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.divergence import kl, log_softmax


def test_kl_on_paper() -> None:
    """p = (1/2, 1/2), q = (1/4, 3/4): 1/2 ln 2 + 1/2 ln 2/3 = 0.143841 nats; the other way 0.130812."""
    p, q = np.log([0.5, 0.5]), np.log([0.25, 0.75])
    assert float(kl(p, q)) == pytest.approx(0.143841, abs=1e-6)
    assert float(kl(q, p)) == pytest.approx(0.130812, abs=1e-6)


def test_kl_of_a_distribution_to_itself_is_zero() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 100)) * 20
    assert kl(logits, logits).tolist() == [0.0] * 5
    assert np.abs(kl(logits, logits + 7.0)).max() < 1e-12


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_kl_is_never_negative(seed: int) -> None:
    one, other = np.random.default_rng(seed).normal(size=(2, 3, 17)) * 3
    assert (kl(one, other) > -1e-12).all()


def test_log_softmax_survives_large_logits() -> None:
    found = log_softmax(np.array([1000.0, 1000.0, -1000.0], np.float32))
    assert found[:2] == pytest.approx([-np.log(2)] * 2, abs=1e-12)
    assert np.isfinite(found).all()


def test_torch_agrees() -> None:
    one, other = np.random.default_rng(1).normal(size=(2, 4, 33))
    expected = torch.nn.functional.kl_div(
        torch.log_softmax(torch.from_numpy(other), -1),
        torch.log_softmax(torch.from_numpy(one), -1),
        log_target=True,
        reduction="none",
    ).sum(-1)
    assert np.abs(kl(one, other) - expected.numpy()).max() < 1e-12
    assert np.abs(kl(other, one) - expected.numpy()).max() > 1e-3  # negative control: the direction matters
