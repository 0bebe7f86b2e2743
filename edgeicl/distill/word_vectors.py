"""Word vectors from counts of which tokens stand near each other: a cheap start for a model's embeddings.

Positive pointwise mutual information, reduced by a truncated singular value decomposition, with singular
values to the power of one half (Levy, Goldberg and Dagan, 2015, TACL 3, sections 2.2 and 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

_WINDOW = 5
_SMOOTHING = 0.75  # of the neighbours' frequencies: rare ones count for less


def word_vectors(
    documents: Sequence[NDArray[np.int32]], *, vocabulary: int, width: int, seed: int = 0
) -> NDArray[np.float32]:
    """A vector [V, H] for each token, of mean 0 and standard deviation 1; zero for one that never occurs."""
    counts = pair_counts(documents, vocabulary=vocabulary)
    information = positive_mutual_information(counts)
    left, values, _ = svds(information, k=width, rng=np.random.default_rng(seed))
    vectors = left * np.sqrt(values)
    seen = np.asarray(counts.sum(axis=1)).ravel() > 0
    vectors[seen] -= vectors[seen].mean(axis=0)
    vectors[~seen] = 0.0
    scaled: NDArray[np.float32] = (vectors / vectors[seen].std()).astype(np.float32)
    return scaled


def pair_counts(documents: Sequence[NDArray[np.int32]], *, vocabulary: int) -> csr_array:
    """How often two tokens stand near each other in a document [V, V]; one at distance d counts 1 / d."""
    # Between documents stands a token that is none of the vocabulary, so that no pair reaches across.
    apart = np.array([vocabulary] * _WINDOW, np.int64)
    tokens = np.concatenate([part for document in documents for part in (document, apart)]).astype(np.int64)
    size = vocabulary + 1
    found = [
        np.unique(tokens[:-distance] * size + tokens[distance:], return_counts=True)
        for distance in range(1, _WINDOW + 1)
    ]
    keys = np.concatenate([keys for keys, _ in found])
    weights = np.concatenate([times / distance for distance, (_, times) in enumerate(found, start=1)])
    # Values of one place are added up.
    counts = csr_array((weights, (keys // size, keys % size)), shape=(size, size))
    both_ways: csr_array = (counts + counts.T).tocsr()[:vocabulary, :vocabulary]
    return both_ways


def positive_mutual_information(counts: csr_array) -> csr_array:
    """max(0, log p(a, b) / (p(a) p(b))) of pair counts [V, V], the second word's frequency smoothed."""
    total = counts.sum()
    of_first = np.asarray(counts.sum(axis=1)).ravel()
    of_second = np.asarray(counts.sum(axis=0)).ravel() ** _SMOOTHING
    of_second *= total / of_second.sum()
    pairs = counts.tocoo()
    rows, columns = pairs.coords
    values = np.log(pairs.data * total / (of_first[rows] * of_second[columns]))
    return csr_array((np.maximum(values, 0.0), (rows, columns)), shape=counts.shape)
