"""Rows of the accuracy table, on paper."""

from __future__ import annotations

import numpy as np
import pytest

from edgeicl.distill.evaluate import accuracy_row, paired_test, require_every_label
from edgeicl.errors import DataError
from edgeicl.specs.measurement import AccuracyRow, Evaluation
from edgeicl.tasks.example import Example

LABELS = ("yes", "no")
GOLD = np.array([0, 0, 0, 1])
RUNS = [np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0])]


def test_accuracy_on_paper() -> None:
    row = accuracy_row("m", "in_domain", RUNS, GOLD, LABELS)
    assert row.accuracy.values == (0.75, 0.75)
    assert row.balanced_accuracy.values == pytest.approx((5 / 6, 0.5))
    assert row.macro_f1 is not None
    assert row.macro_f1.values == pytest.approx(((4 / 5 + 2 / 3) / 2, (6 / 7 + 0) / 2))
    assert row.accuracy_by_label["no"].values == (1.0, 0.0)
    assert (row.examples, row.ranking, row.groups) == (4, None, ())


def test_groups_are_told_apart_and_by_label() -> None:
    groups = ["overlap", "overlap", "subsequence", "subsequence"]
    overlap, subsequence = accuracy_row("m", "out_of_domain", RUNS, GOLD, LABELS, groups=groups).groups
    assert (overlap.group, overlap.examples, overlap.accuracy.values) == ("overlap", 2, (1.0, 1.0))
    assert set(overlap.accuracy_by_label) == {"yes"}
    assert subsequence.accuracy_by_label["yes"].values == (0.0, 1.0)
    assert subsequence.accuracy_by_label["no"].values == (1.0, 0.0)


def test_ranks_of_many_labels() -> None:
    many = tuple(f"word {n}" for n in range(30))
    ranks = [np.array([1, 2, 10, 20]), np.array([1, 1, 11, 4])]
    row = accuracy_row("m", "in_domain", RUNS, GOLD, many, ranks=ranks)
    assert row.ranking is not None
    assert row.ranking.precision_at_1.values == (0.25, 0.5)
    assert row.ranking.precision_at_10.values == (0.75, 0.75)
    assert row.ranking.mean_reciprocal_rank.values == pytest.approx((1.65 / 4, (2 + 1 / 11 + 0.25) / 4))
    assert accuracy_row("m", "in_domain", RUNS, GOLD, LABELS, ranks=ranks).ranking is None


def test_a_label_without_examples_is_named() -> None:
    with pytest.raises(DataError, match="in_domain: found no example with the label no"):
        require_every_label("in_domain", [Example({}, "yes")], LABELS)


def test_a_test_between_methods() -> None:
    # Right: 1101 and 1110 against 0001. Halves: 2, 2, 1, -1 of 2; of 16 signs 2 reach a sum of 6 and none
    # more, so with the sum of 4 that is seen: 2+2+1-1 and 2+2-1+1, and 6; each with its opposite.
    found = paired_test("a", RUNS, "b", [np.array([1, 1, 1, 1])], data="in_domain", gold=GOLD)
    assert (found.method, found.baseline, found.examples) == ("a", "b", 4)
    assert found.points == pytest.approx(50.0)
    assert found.p_value == pytest.approx(6 / 16)


def test_evaluations_of_earlier_versions_still_load() -> None:
    row = accuracy_row("m", "in_domain", RUNS, GOLD, LABELS)
    old = row.model_dump(exclude={"macro_f1", "ranking", "groups"})
    assert AccuracyRow.model_validate(old).macro_f1 is None
    assert Evaluation.model_validate({"rows": [old], "gain_points": None}).paired_tests == ()
