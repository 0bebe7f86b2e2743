"""Word vectors: the information checked on paper, the whole against a dense second implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from edgeicl.distill.word_vectors import pair_counts, positive_mutual_information, word_vectors


def test_information_on_paper() -> None:
    # 8 pairs. First words: 4 and 4. Second words: 6 and 2, smoothed to 6^0.75 and 2^0.75, scaled back to 8.
    counts = csr_array(np.array([[4.0, 0.0], [2.0, 2.0]]))
    smoothed = np.array([6**0.75, 2**0.75]) * 8 / (6**0.75 + 2**0.75)
    found = positive_mutual_information(counts).toarray()
    assert found[0, 0] == pytest.approx(math.log(4 * 8 / (4 * smoothed[0])))
    assert found[0, 1] == 0
    assert found[1, 0] == 0  # rarer than by chance
    assert found[1, 1] == pytest.approx(math.log(2 * 8 / (4 * smoothed[1])))


def test_words_in_the_same_company_are_alike_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    documents = []
    for _ in range(400):
        group = int(rng.integers(2))  # words 0..4 keep company, and 5..9; 10 never occurs
        documents.append((rng.integers(0, 5, 30) + 5 * group).astype(np.int32))
    vectors = word_vectors(documents, vocabulary=11, width=4)
    unit = vectors[:10] / np.linalg.norm(vectors[:10], axis=1, keepdims=True)
    alike = unit @ unit.T
    same = np.equal.outer(np.arange(10) // 5, np.arange(10) // 5)
    assert alike[same].mean() > 0.5
    assert alike[~same].mean() < 0
    assert not vectors[10].any()
    assert vectors[:10].std() == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(vectors, word_vectors(documents, vocabulary=11, width=4))


def test_pairs_on_paper_none_reaching_from_one_document_to_the_next() -> None:
    documents = [np.array([0, 1, 0, 2], np.int32), np.array([3, 3], np.int32)]
    expected = np.zeros((4, 4))
    # 0 1 at distance 1 twice, 0 0 at 2 counted from both sides, 0 2 at 1 and 3, 1 2 at 2, and 3 3 from both
    for first, second, count in [(0, 1, 2.0), (0, 0, 1 / 2), (0, 2, 1 + 1 / 3), (1, 2, 1 / 2), (3, 3, 1.0)]:
        expected[first, second] += count
        expected[second, first] += count
    assert pair_counts(documents, vocabulary=4).toarray() == pytest.approx(
        np.where(np.eye(4) > 0, np.diag(np.diag(expected)), expected)
    )
