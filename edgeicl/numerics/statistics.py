"""A mean and how sure one may be of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from edgeicl.errors import DataError
from edgeicl.specs.measurement import Estimate


def estimate(
    values: Sequence[float], *, confidence: float = 0.95, within: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """Mean of `values` with Student's two-sided t interval: mean ± t * s / sqrt(n), n - 1 degrees of freedom.

    What can't be is cut off: `within` is the range that a value can have, (0, 1) for an accuracy. One value
    has no spread: its interval is the value itself, with `confidence` 0.

    Raises:
        DataError: no values, or one that is not finite.
    """
    if not values or not np.isfinite(values).all():
        raise DataError(f"a mean needs finite values, found {list(values)}")
    mean = float(np.mean(values))
    kept = tuple(float(value) for value in values)
    if len(values) == 1:
        return Estimate(mean=mean, low=mean, high=mean, confidence=0.0, values=kept)
    t = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    half_width = t * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Estimate(
        mean=mean,
        low=max(mean - half_width, within[0]),
        high=min(mean + half_width, within[1]),
        confidence=confidence,
        values=kept,
    )
