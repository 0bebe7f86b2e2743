"""Whether one method is better than another on the same examples.

The unit is the example: examples were drawn apart, runs of a method over demonstration seeds share them. So
each example gives one difference, between the shares of each method's runs that were right on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve
from scipy.stats import binom

_STANDARD_ERRORS = 1.96


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference in accuracy over examples, its 95 % interval, and the two-sided p of no difference."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(method: NDArray[np.bool_], baseline: NDArray[np.bool_]) -> PairedDifference:
    """From what was right, [runs, N] of each; the numbers of runs may differ.

    The p-value is of the sign-flip permutation test on the sum of differences, exact and not sampled: it
    convolves what examples of equal difference may sum up to. For one run each this is McNemar's exact test.
    The interval is that of Agresti and Min (2005, Statistics in Medicine 24:729), which holds with few
    examples that differ. Neither says what other demonstrations would have given: that is what intervals over
    seeds are for.
    """
    runs, others = len(method), len(baseline)
    # In units of 1 / lcm(runs, others) all differences are whole numbers.
    units = runs * others // gcd(runs, others)
    differences = method.sum(0) * (units // runs) - baseline.sum(0) * (units // others)
    shares = differences / units
    # As if there were two more examples: half a one that speaks for either side, and one that speaks for none.
    count = len(shares) + 2
    center = float(shares.sum()) / count
    variance = (float((shares**2).sum()) + 1.0) / count - center**2
    error = _STANDARD_ERRORS * (variance / count) ** 0.5
    p_value = _sign_flip_p(np.abs(differences), int(differences.sum()))
    return PairedDifference(float(shares.mean()), max(center - error, -1.0), min(center + error, 1.0), p_value)


def _sign_flip_p(sizes: NDArray[np.int64], observed: int) -> float:
    """Share of all ways to sign `sizes` whose sum is at least as far from 0 as `observed`."""
    total = int(sizes.sum())
    # chances[k]: that the sizes with a plus sum up to k.
    chances = np.ones(1)
    for size, count in zip(*np.unique(sizes[sizes > 0], return_counts=True), strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = convolve(chances, spread)
    sums = 2 * np.arange(total + 1) - total
    # Long convolutions go through Fourier's transform, whose rounding is some 1e-16.
    return float(np.clip(chances[np.abs(sums) >= abs(observed)].sum(), 0.0, 1.0))
