"""Votes counted by hand."""

from __future__ import annotations

import numpy as np

from edgeicl.numerics.voting import majority_vote, votes

# three sets, four queries, three labels
SHARES = np.array(
    [
        [[0.6, 0.4, 0.0], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.9, 0.1, 0.0]],
        [[0.6, 0.4, 0.0], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.4, 0.6, 0.0]],
        [[0.0, 1.0, 0.0], [0.2, 0.3, 0.5], [0.4, 0.3, 0.3], [0.4, 0.6, 0.0]],
    ]
)


def test_votes_on_paper() -> None:
    assert votes(SHARES).tolist() == [[2, 1, 0], [1, 1, 1], [1, 1, 1], [1, 2, 0]]


def test_the_majority_decides_and_of_a_tie_the_highest_mean() -> None:
    """Query 0: two votes against one, though the mean is for label 1 (0.4 against 0.6). Queries 1 and 2: a vote
    each, means 0.27, 0.4, 0.33 and 0.23, 0.33, 0.43. Query 3: two votes, mean 0.57 against 0.43."""
    assert majority_vote(SHARES).tolist() == [0, 1, 2, 1]
    assert SHARES.mean(axis=0).argmax(axis=1).tolist() == [1, 1, 2, 0]  # negative control: votes are not means


def test_a_tie_is_among_those_who_have_most_votes() -> None:
    """Labels 0 and 1 have two votes each; label 2 has the highest mean and none."""
    shares = np.array([[[0.51, 0.0, 0.49]], [[0.51, 0.0, 0.49]], [[0.0, 0.51, 0.49]], [[0.0, 0.52, 0.48]]])
    assert shares.mean(axis=0).argmax() == 2
    assert majority_vote(shares).tolist() == [1]


def test_one_set_is_its_own_majority() -> None:
    assert majority_vote(SHARES[:1]).tolist() == [0, 0, 2, 0]
