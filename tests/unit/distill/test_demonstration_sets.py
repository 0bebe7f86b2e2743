from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeicl.distill.demonstration_sets import averaged, set_seeds


def test_one_set_is_named_and_drawn_by_its_student() -> None:
    assert set_seeds((0, 7), 1) == {0: {"seed_0": 0}, 7: {"seed_7": 7}}


def test_several_sets_on_paper() -> None:
    assert set_seeds((0, 2), 2) == {
        0: {"seed_0_set_0": 0, "seed_0_set_1": 1},
        2: {"seed_2_set_0": 4, "seed_2_set_1": 5},
    }


@given(st.sets(st.integers(0, 50), min_size=1), st.integers(1, 5))
def test_no_two_students_share_a_set(seeds: set[int], per_student: int) -> None:
    found = [seed for sets in set_seeds(sorted(seeds), per_student).values() for seed in sets.values()]
    assert len(set(found)) == len(found) == len(seeds) * per_student


def test_the_mean_is_of_probabilities_on_paper() -> None:
    """Of (0.9, 0.1) and (0.3, 0.7): (0.6, 0.4). The mean of logarithms would give (0.52, 0.27)."""
    sets = [np.log(np.array([[0.9, 0.1]], dtype=np.float32)), np.log(np.array([[0.3, 0.7]], dtype=np.float32))]
    assert np.exp(averaged(sets)) == pytest.approx(np.array([[0.6, 0.4]]), abs=1e-6)
    assert averaged(sets[:1]) is sets[0]


@given(arrays(np.float64, (3, 300, 4), elements=st.floats(-9, 9)))
def test_agrees_with_plain_probabilities_in_half_precision_too(logits: np.ndarray) -> None:
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.exp(logs).mean(0)
    full = averaged([values.astype(np.float32) for values in logs])
    half = averaged([values.astype(np.float16) for values in logs])
    assert (full.dtype, half.dtype) == (np.float32, np.float16)
    assert np.exp(full.astype(float)) == pytest.approx(expected, abs=1e-5)
    # Half precision keeps 11 bits: log-probabilities down to -18.7 are off by up to 2^-7.
    assert np.exp(half.astype(float)) == pytest.approx(expected, rel=0.02, abs=1e-6)
