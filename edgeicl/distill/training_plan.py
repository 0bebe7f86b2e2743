"""What each training step does, as a function of its number alone, so that a resumed run goes on unchanged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BATCHES_IN_POOL = 32


def batch_order(lengths: Sequence[int], *, batch_size: int, epochs: int, seed: int) -> list[NDArray[np.int64]]:
    """Indices of every step's examples: each example once an epoch, similar lengths together.

    An epoch is shuffled, cut into pools of 32 batches, each pool sorted by length and cut into batches, and
    the batches shuffled.
    """
    steps: list[NDArray[np.int64]] = []
    sizes = np.asarray(lengths)
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        shuffled = rng.permutation(len(sizes))
        batches = []
        for start in range(0, len(shuffled), batch_size * _BATCHES_IN_POOL):
            pool = shuffled[start : start + batch_size * _BATCHES_IN_POOL]
            pool = pool[np.argsort(sizes[pool], kind="stable")]
            batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
        steps += [batches[place] for place in rng.permutation(len(batches))]
    return steps


def learning_rate_at(step: int, *, steps: int, peak: float, warmup_ratio: float) -> float:
    """Linear from near 0 to `peak` over the warm-up, then linear down to near 0; `step` starts at 0."""
    warmup = math.ceil(warmup_ratio * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / max(1, steps - warmup)
