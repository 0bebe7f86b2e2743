"""Figures that can be checked on paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeicl.bench.summary import (
    ceiling_tokens_per_second,
    middle_spread,
    percentiles,
    prefill_tokens_per_second,
    spread_ratio,
    tokens_per_second,
)


def test_percentiles_on_paper() -> None:
    found = percentiles([[float(n) for n in range(50)], [float(n) for n in range(50, 101)]])
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == (50.0, 90.0, 99.0)


def test_speeds_on_paper() -> None:
    # Two tokens in 10 + 30 ms are 50 tokens/s, not the mean of 100 and 33.
    assert tokens_per_second([[10.0, 30.0], [5.0, 5.0]]) == [50.0, 200.0]
    assert prefill_tokens_per_second([100.0, 64.0, 10.0], prompt_tokens=128) == 2000.0


def test_ceiling_on_paper() -> None:
    assert ceiling_tokens_per_second(40e9, 80_000_000) == 500.0


def test_spread() -> None:
    assert spread_ratio([90.0, 100.0, 110.0]) == pytest.approx(0.2, abs=1e-12)
    assert spread_ratio([100.0, 100.0]) == 0.0
    assert spread_ratio([100.0]) is None


@given(
    st.lists(
        st.lists(st.floats(0.01, 1e4), min_size=1, max_size=20), min_size=1, max_size=5
    )
)  # fmt: skip
def test_percentiles_rise_and_stay_within_the_samples(samples: list[list[float]]) -> None:
    found = percentiles(samples)
    low, high = min(map(min, samples)), max(map(max, samples))
    assert low - 1e-9 <= found.p50_ms <= found.p90_ms <= found.p99_ms <= high + 1e-9


def test_the_middle_half_on_paper() -> None:
    """Of 1, 2, 3, 4, 5 the quartiles are 2 and 4; one repetition ten times as slow changes nothing."""
    assert middle_spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert middle_spread([10.0, 100.0, 100.0, 100.0, 100.0]) == 0.0
    assert middle_spread([1.0]) is None
