"""The exact permutation test, judged by enumeration, by McNemar's test and by sampled permutations."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from edgeicl.numerics.paired_test import paired_difference


def right(*runs: str) -> np.ndarray:
    """`1101` -> right, right, wrong, right."""
    return np.array([[character == "1" for character in run] for run in runs])


def enumerated_p(method: np.ndarray, baseline: np.ndarray) -> float:
    """All 2^N ways to swap the two methods, one by one."""
    differences = method.mean(0) - baseline.mean(0)
    observed = abs(differences.sum())
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=len(differences))]
    return float(np.mean([value >= observed - 1e-9 for value in sums]))


def test_on_paper() -> None:
    # Five examples only the method gets right, one only the baseline: of 2^6 signs of six ones, 1 + 6 give a
    # sum of at least 4, as many of at most -4. Differences 1 x5, -1, 0 x2: mean 1/2.
    found = paired_difference(right("11111011"), right("00000111"))
    assert found.mean == 0.5
    assert found.p_value == pytest.approx(14 / 64)
    # Of ten, with the two that are made up: 4/10, and a variance of (6 + 1) / 10 - 0.16 = 0.54.
    assert (found.low, found.high) == pytest.approx((0.4 - 1.96 * 0.054**0.5, 0.4 + 1.96 * 0.054**0.5))


def test_four_that_differ_of_many_are_not_certain() -> None:
    """p is 1/8; an interval of the mean and its standard error alone would leave 0 out."""
    found = paired_difference(right("1" * 150), right("0" * 4 + "1" * 146))
    assert found.p_value == pytest.approx(1 / 8)
    assert found.low < 0 < found.mean < found.high


@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 9), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_as_enumeration_says(runs: int, others: int, examples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    method, baseline = rng.random((runs, examples)) < 0.7, rng.random((others, examples)) < 0.4
    found = paired_difference(method, baseline)
    assert found.p_value == pytest.approx(enumerated_p(method, baseline), abs=1e-12)
    swapped = paired_difference(baseline, method)
    assert swapped.p_value == pytest.approx(found.p_value, abs=1e-12)
    assert (swapped.mean, swapped.low, swapped.high) == pytest.approx((-found.mean, -found.high, -found.low))


def test_of_one_run_each_it_is_mcnemars_exact_test() -> None:
    rng = np.random.default_rng(1)
    method, baseline = rng.random((1, 3000)) < 0.72, rng.random((1, 3000)) < 0.70
    only, other = int((method & ~baseline).sum()), int((~method & baseline).sum())
    found = paired_difference(method, baseline)
    assert found.p_value == pytest.approx(binomtest(only, only + other).pvalue, rel=1e-9)


def test_as_sampled_permutations_say_on_many_examples() -> None:
    rng = np.random.default_rng(2)
    method, baseline = rng.random((5, 2000)) < 0.55, rng.random((5, 2000)) < 0.54
    sampled = permutation_test(
        (method.mean(0), baseline.mean(0)),
        lambda first, second, axis: (first - second).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=4000,
        rng=np.random.default_rng(3),
    )
    # Four standard errors of a share that is sampled 4,000 times.
    assert paired_difference(method, baseline).p_value == pytest.approx(sampled.pvalue, abs=0.032)


def test_same_methods_do_not_differ_and_certain_ones_do() -> None:
    hits = right("1100", "1010")
    assert paired_difference(hits, hits).p_value == 1.0
    always, never = np.ones((2, 40), bool), np.zeros((3, 40), bool)
    assert paired_difference(always, never).p_value == pytest.approx(2 * 0.5**40, rel=1e-6)


def test_under_the_null_five_in_a_hundred_are_significant() -> None:
    """Also with five runs that share their examples, where pooling all answers as independent would fail."""
    rng = np.random.default_rng(4)
    significant = 0
    for _ in range(400):
        hard = rng.random(120) < 0.5
        method, baseline = (np.tile(np.where(hard, rng.random(120) < 0.3, True), (5, 1)) for _ in range(2))
        significant += paired_difference(method, baseline).p_value < 0.05
    assert significant / 400 < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
