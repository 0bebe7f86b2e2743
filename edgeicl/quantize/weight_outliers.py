"""z-score density: how many of a decoder block's weights are far above their mean.

    ZD = share of the block's weights w with (w - mean) / standard deviation > 1

Dumitru et al., arXiv 2406.17415, section 3.2: the fewer, the more important the block. They use the order
alone; here a block's importance is the least ZD of all blocks over its own, so that the most important has 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeicl.quantize.student_weights import StudentWeights


def outlier_importances(weights: StudentWeights) -> tuple[float, ...]:
    """Importance of every decoder block, in 0..1; 1 for all where no block has an outlier."""
    shares = [
        z_score_density(weights.matrices[g.name] for g in weights.groups if g.layer == layer)
        for layer in range(weights.anatomy.layers)
    ]
    least = min(shares)
    return tuple(least / share if share else 1.0 for share in shares)


def z_score_density(matrices: Iterable[np.ndarray]) -> float:
    """Share of all weights that are more than one standard deviation above their common mean."""
    weights = np.concatenate([matrix.ravel() for matrix in matrices])
    mean, deviation = weights.mean(dtype=np.float64), weights.std(dtype=np.float64)
    return float((weights > mean + deviation).mean())
