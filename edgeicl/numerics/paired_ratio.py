"""How many times as large one of two quantities is, from measurements that were taken in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeicl.errors import DataError
from edgeicl.specs.comparison import Ratio

_RESAMPLES = 9999


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], *, confidence: float = 0.95) -> Ratio:
    """The median over pairs of `ours` / `theirs`, with its percentile bootstrap interval over pairs.

    A pair is one round, so that what slowed both of it cancels; the median bears a round in which one alone was
    slowed. Resampled with a fixed seed. `confidence` is what the interval really has: of few pairs it is their
    range, which holds the median of all in 1 - 2 / 2^n of cases. One pair has none: 0.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.

    Raises:
        DataError: no pairs, unequal counts, or values that are not finite and above 0.
    """
    values = np.array([ours, theirs], dtype=np.float64) if len(ours) == len(theirs) else np.empty(0)
    if not values.size or not (np.isfinite(values).all() and (values > 0).all()):
        raise DataError(f"a ratio needs pairs of positive values, found {list(ours)} and {list(theirs)}")
    ratios = values[0] / values[1]
    median, kept = float(np.median(ratios)), tuple(float(value) for value in ratios)
    in_range = 1.0 - 2.0 ** (1 - len(ratios))  # all on one side of the median with half of that each
    if np.ptp(ratios) == 0.0:
        known = min(confidence, in_range)
        return Ratio(median=median, low=median, high=median, confidence=known, values=kept)
    from scipy import stats  # seconds to import, for those who import the bench alone

    found = stats.bootstrap(
        (ratios,),
        np.median,
        n_resamples=_RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = float(found.low), float(found.high)
    if np.allclose((low, high), (ratios.min(), ratios.max()), rtol=1e-9):
        confidence = min(confidence, in_range)
    return Ratio(median=median, low=low, high=high, confidence=confidence, values=kept)
