"""Ratios on paper, and how their intervals behave."""

from __future__ import annotations

import numpy as np
import pytest

from edgeicl.errors import DataError
from edgeicl.numerics.paired_ratio import paired_ratio


def test_on_paper() -> None:
    found = paired_ratio([10.0, 30.0, 20.0], [5.0, 10.0, 5.0])
    assert found.values == (2.0, 3.0, 4.0)
    assert found.median == 3.0
    # A resample of three has a median of 2 with probability 7/27, and of 4 the same: beyond 2.5 % at both ends.
    assert (found.low, found.high) == (2.0, 4.0)
    # All three on one side of the true median: twice (1/2)^3.
    assert found.confidence == 0.75


def test_what_slows_both_of_a_pair_cancels() -> None:
    slow = np.array([1.0, 3.0, 7.0, 2.0])
    found = paired_ratio(list(4.0 * slow), list(2.0 * slow))
    assert (found.low, found.median, found.high, found.confidence) == (2.0, 2.0, 2.0, 0.875)


def test_one_pair_has_no_interval() -> None:
    assert paired_ratio([3.0], [2.0]).confidence == 0.0


@pytest.mark.parametrize("rounds", [2, 3, 4])
def test_of_few_rounds_the_range_covers_as_often_as_it_says(rounds: int) -> None:
    generator = np.random.default_rng(2)
    held, trials, said = 0, 400, 0.0
    for _ in range(trials):
        found = paired_ratio(list(2.0 * np.exp(generator.normal(0.0, 0.3, rounds))), [1.0] * rounds)
        held += found.low <= 2.0 <= found.high
        said += found.confidence / trials
    assert said == pytest.approx(1 - 2.0 ** (1 - rounds))
    assert abs(held / trials - said) < 4 * np.sqrt(said * (1 - said) / trials)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    """Of 100 samples of 15 log-normal ratios around 2, as a share that the sample of 100 may vary by."""
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        noise = np.exp(generator.normal(0.0, 0.3, 15))
        found = paired_ratio(list(2.0 * noise), [1.0] * 15)
        held += found.low <= 2.0 <= found.high
    assert 85 <= held <= 99


@pytest.mark.parametrize(
    ("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([float("nan")], [1.0])]
)
def test_what_is_no_pair_of_measurements(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(DataError, match="pairs of positive values"):
        paired_ratio(ours, theirs)
