"""From raw repetitions to the figures that are shown. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from edgeicl.specs.measurement import Percentiles

NOISY_SPREAD_RATIO = 0.15


def percentiles(samples_ms: Sequence[Sequence[float]]) -> Percentiles | None:
    """p50, p90 and p99 over all steps of all repetitions, interpolated linearly between ranks; None of none."""
    if not any(samples_ms):
        return None
    p50, p90, p99 = np.percentile(np.concatenate([np.asarray(row) for row in samples_ms]), [50, 90, 99])
    return Percentiles(p50_ms=float(p50), p90_ms=float(p90), p99_ms=float(p99))


def tokens_per_second(samples_ms: Sequence[Sequence[float]]) -> list[float]:
    """Decode speed of each repetition that decoded: its tokens over the sum of their times."""
    return [1e3 * len(row) / sum(row) for row in samples_ms if row]


def prefill_tokens_per_second(first_token_ms: Sequence[float], prompt_tokens: int) -> float:
    """Prompt tokens over the median time to the first token."""
    return 1e3 * prompt_tokens / median(first_token_ms)


def spread_ratio(speeds: Sequence[float]) -> float | None:
    """Fastest minus slowest over the median; None for a single repetition, which shows no spread."""
    if len(speeds) < 2:
        return None
    return (max(speeds) - min(speeds)) / median(speeds)


def timed_speeds(run: Mapping[str, Any]) -> dict[str, list[float]]:
    """What one answer of the runner timed -> its speed in each repetition; decode first, where there is any."""
    decode = tokens_per_second(run["decode_ms"])
    prefill = {"prefill": [1e3 / first for first in run["first_token_ms"]]}
    return {"decode": decode, **prefill} if decode else prefill


def middle_spread(speeds: Sequence[float]) -> float | None:
    """Upper minus lower quartile over the median: what the median rests on, without a lone slow repetition."""
    if len(speeds) < 2:
        return None
    low, high = np.percentile(speeds, [25, 75])
    return float((high - low) / median(speeds))


def ceiling_tokens_per_second(bandwidth_bytes_per_second: float, bytes_per_token: int) -> float:
    """Tokens per second at which reading the weights and the cache alone takes all the time."""
    return bandwidth_bytes_per_second / bytes_per_token
