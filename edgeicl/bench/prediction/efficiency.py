"""How much of a memory's specified bandwidth decoding reaches, from published speeds: a roofline and a slope.

    bytes a second = specified bandwidth * share * (bytes a token / 1 GB) ** slope

A small model has as many nodes and as much to synchronize as a large one and less to read, so it reaches less;
share and slope are fitted to logarithms, and chips that were measured often don't outvote the others.
Roofline: Williams, Waterman and Patterson (2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeicl.bench.prediction.published import PublishedSpeed

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Efficiency:
    """Share of the specified bandwidth that a token of 1 GB reaches, and how that changes with its bytes."""

    share: float
    slope: float

    def bandwidth(self, memory_bytes_per_second: float, token_bytes: float) -> float:
        """Bytes a second while decoding."""
        reached: float = self.share * (token_bytes / _GIGABYTE) ** self.slope
        return memory_bytes_per_second * reached

    def log_errors(self, speeds: Sequence[PublishedSpeed]) -> npt.NDArray[np.float64]:
        """Logarithms of predicted over published speeds."""
        return np.array(
            [np.log(self.bandwidth(s.memory_bytes_per_second, s.token_bytes) / s.bandwidth) for s in speeds]
        )


def fitted(speeds: Sequence[PublishedSpeed]) -> Efficiency:
    """Of the ridge that errs least on chips that were held out one after the other."""

    def error(ridge: float) -> float:
        found = [
            np.abs(_fit([s for s in speeds if s.soc != soc], ridge).log_errors(own))
            for soc, own in by_soc(speeds).items()
        ]
        return float(np.concatenate(found).mean())

    return _fit(speeds, min(RIDGES, key=error))


def by_soc(speeds: Sequence[PublishedSpeed]) -> dict[str, list[PublishedSpeed]]:
    """Chip -> its speeds."""
    return {soc: [s for s in speeds if s.soc == soc] for soc in dict.fromkeys(s.soc for s in speeds)}


def _fit(speeds: Sequence[PublishedSpeed], ridge: float) -> Efficiency:
    """Weighted ridge regression of one slope; a chip with n rows counts as sqrt(n)."""
    counts = {soc: len(own) for soc, own in by_soc(speeds).items()}
    weights = np.array([counts[s.soc] ** -0.5 for s in speeds])
    weights /= weights.mean()
    sizes = np.log([s.token_bytes / _GIGABYTE for s in speeds])
    shares = np.log([s.bandwidth / s.memory_bytes_per_second for s in speeds])
    size, share = (np.average(values, weights=weights) for values in (sizes, shares))
    slope = (weights * (sizes - size) * (shares - share)).sum() / (
        (weights * (sizes - size) ** 2).sum() + ridge
    )
    return Efficiency(float(np.exp(share - slope * size)), float(slope))
