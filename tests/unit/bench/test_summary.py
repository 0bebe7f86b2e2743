"""Figures that can be checked on paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeicl.bench.summary import (
    ceiling_tokens_per_second,
    fitted_lengths,
    mean_decode_depth_tokens,
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


def test_mean_depth_is_the_mean_of_the_steps() -> None:
    # After a prompt of 10 the steps read 11, 12, 13 and 14 positions.
    assert mean_decode_depth_tokens(10, 4) == (11 + 12 + 13 + 14) / 4


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


def test_lengths_that_fit_are_left_alone() -> None:
    assert fitted_lengths(128, 64, 192) == (128, 64, None)


def test_lengths_are_cut_with_a_note() -> None:
    prompt, decode, note = fitted_lengths(128, 64, 100)
    assert (prompt, decode) == (36, 64)
    assert note is not None
    assert "prompt 128 -> 36" in note
    assert fitted_lengths(128, 64, 10)[:2] == (1, 9)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2, 4096))
def test_cut_lengths_fit(prompt: int, decode: int, context: int) -> None:
    found_prompt, found_decode, note = fitted_lengths(prompt, decode, context)
    assert 1 <= found_prompt <= prompt
    assert 1 <= found_decode <= decode
    assert found_prompt + found_decode <= context
    assert (note is None) == ((found_prompt, found_decode) == (prompt, decode))
