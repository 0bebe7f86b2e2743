"""Intervals against figures on paper and scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgeicl.errors import DataError
from edgeicl.numerics.statistics import estimate


def test_interval_on_paper() -> None:
    """1, 2, 3: mean 2, standard deviation 1, t(0.975; 2) = 4.3027, half width 4.3027 / sqrt(3) = 2.4841."""
    found = estimate([1, 2, 3])
    assert found.mean == 2.0
    assert found.low == pytest.approx(2 - 2.4841, abs=1e-4)
    assert found.high == pytest.approx(2 + 2.4841, abs=1e-4)
    assert found.values == (1.0, 2.0, 3.0)


def test_scipy_agrees_at_another_confidence() -> None:
    values = np.random.default_rng(0).normal(size=9).tolist()
    low, high = stats.t.interval(0.8, 8, loc=np.mean(values), scale=stats.sem(values))
    found = estimate(values, confidence=0.8)
    assert (found.low, found.high, found.confidence) == (pytest.approx(low), pytest.approx(high), 0.8)
    assert found.high < estimate(values, confidence=0.95).high


def test_one_value_claims_no_confidence() -> None:
    found = estimate([0.7])
    assert (found.mean, found.low, found.high, found.confidence) == (0.7, 0.7, 0.7, 0.0)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")]])
def test_values_that_have_no_mean_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="a mean needs finite values"):
        estimate(values)


def test_an_interval_of_accuracies_stays_among_accuracies() -> None:
    found = estimate([0.9, 1.0, 1.0], within=(0.0, 1.0))
    assert found.high == 1.0
    assert found.low == pytest.approx(0.9667 - 0.1434, abs=1e-4)
    assert estimate([0.9, 1.0, 1.0]).high == pytest.approx(0.9667 + 0.1434, abs=1e-4)
