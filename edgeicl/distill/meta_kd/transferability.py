"""How much an example tells of other domains: its cosine to prototypes of all domains.

Source: Meta-KD (arXiv 2012.01266), section 3, instance-level transferable knowledge.
Notation: N examples, H width of an embedding, K domains.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def transferability(
    embeddings: Floats,
    classes: NDArray[np.int64],
    domains: NDArray[np.int64],
    *,
    prototypes: Literal["class", "domain"],
    own_domain_share: float,
) -> NDArray[np.float32]:
    """Weights [N] in [0, 1] of examples with `embeddings` [N, H], from their classes [N] and domains [N].

    class: a prototype is the mean of one class in one domain. A weight is `own_domain_share` times the cosine
    to the prototype of the example's class in its domain, and the rest times the mean of the cosines to those
    of its class in each other domain that has the class.

    domain: as the public code has it, a prototype is the mean of a domain, and the second cosine is to the mean
    of the other domains' prototypes.

    Where no other domain has a prototype, the own one counts alone. A weight below 0 becomes 0, since it would
    turn a loss upside down.
    """
    groups = classes if prototypes == "class" else np.zeros_like(classes)
    weights = np.zeros(len(embeddings))
    for group in np.unique(groups):
        of_group = groups == group
        centroids = {
            domain: embeddings[of_group & (domains == domain)].mean(0)
            for domain in np.unique(domains[of_group])
        }
        for domain, centroid in centroids.items():
            rows = of_group & (domains == domain)
            near = _cosine(embeddings[rows], centroid)
            others = np.array([other for name, other in centroids.items() if name != domain])
            if len(others) == 0:
                weights[rows] = near
                continue
            if prototypes == "class":
                far = np.mean([_cosine(embeddings[rows], other) for other in others], axis=0)
            else:
                far = _cosine(embeddings[rows], others.mean(0))
            weights[rows] = own_domain_share * near + (1 - own_domain_share) * far
    return weights.clip(min=0).astype(np.float32)


def expertise(teacher: Floats, gold: NDArray[np.int64]) -> NDArray[np.float32]:
    """1 / (1 + exp((p - 1)^2)) from the teacher's log-probabilities [N, L] and the true labels [N].

    p is the probability of the true label: 0.5 where the teacher is certain and right, 0.27 where it is certain
    and wrong (arXiv 2012.01266, section 3, meta-distillation).
    """
    right = np.exp(teacher[np.arange(len(gold)), gold])
    return np.asarray(1 / (1 + np.exp((right - 1) ** 2)), np.float32)


def _cosine(rows: Floats, direction: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(direction)
    # An embedding of length 0 has no direction; it is like nothing.
    return np.asarray(np.divide(rows @ direction, lengths, out=np.zeros(len(rows)), where=lengths > 0))
