"""Figures checked on paper, and against sklearn's own balanced accuracy and an F1 written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from edgeicl.numerics.classification import measures, rank_of_gold

LABELS = ("a", "b", "c")


def test_on_paper() -> None:
    # Gold a a a b; predicted a a b b. a: precision 1, recall 2/3, F1 4/5. b: precision 1/2, recall 1, F1 2/3.
    found = measures(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), LABELS)
    assert found.accuracy == 0.75
    assert found.balanced_accuracy == pytest.approx(5 / 6)
    assert found.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found.accuracy_by_label == {"a": pytest.approx(2 / 3), "b": 1.0}


def test_a_label_that_is_never_predicted_counts_as_zero() -> None:
    found = measures(np.array([0, 0, 2, 2]), np.array([0, 0, 1, 1]), LABELS)
    assert found.macro_f1 == 0.5  # a: 1, b: 0; c does not occur
    assert found.balanced_accuracy == 0.5


def plain_macro_f1(predicted: list[int], gold: list[int]) -> float:
    values = []
    for label in set(gold):
        hits = sum(p == g == label for p, g in zip(predicted, gold, strict=True))
        values.append(2 * hits / (predicted.count(label) + gold.count(label)))
    return sum(values) / len(values)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_as_a_second_implementation_says(pairs: list[tuple[int, int]]) -> None:
    predicted, gold = (list(values) for values in zip(*pairs, strict=True))
    found = measures(np.array(predicted), np.array(gold), LABELS)
    assert found.macro_f1 == pytest.approx(plain_macro_f1(predicted, gold))
    if set(predicted) <= set(gold):  # sklearn warns of the others
        assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(gold, predicted))


def test_ranks_on_paper() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [-np.inf, 0.1, -np.inf]])
    assert rank_of_gold(scores, np.array([2, 0, 1, 1])).tolist() == [2, 1, 2, 1]


@given(st.integers(0, 10**6))
def test_rank_one_is_the_prediction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, gold = rng.integers(0, 4, (20, 5)).astype(float), rng.integers(0, 5, 20)
    assert ((rank_of_gold(scores, gold) == 1) == (scores.argmax(1) == gold)).all()
