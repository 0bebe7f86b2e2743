"""Which demonstration sets a student learns from, and the mean of what the teacher says after each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from edgeicl.distill.teacher_targets import seed_name
from edgeicl.tasks.example import Example

# Over the vocabulary a row has 100 kB.
_ROWS = 256


def set_seeds(seeds: Sequence[int], per_student: int) -> dict[int, dict[str, int]]:
    """By the seed of each student: names of its demonstration sets, and the seed that each is drawn with.

    No two students share a set, so that their spread is that of independent draws.
    """
    if per_student == 1:
        return {seed: {seed_name(seed): seed} for seed in seeds}
    return {
        seed: {f"{seed_name(seed)}_set_{n}": seed * per_student + n for n in range(per_student)}
        for seed in seeds
    }


def sources_of_sets(
    sets: Mapping[int, Mapping[str, int]], of_student: Mapping[int, list[Example]]
) -> dict[int, list[Example]]:
    """By the seed of each set: what it is drawn from, its student's own source; empty where there is none."""
    return {
        seed: of_student[student]
        for student, named in sets.items()
        if student in of_student
        for seed in named.values()
    }


def averaged(targets: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Log of the mean probabilities of several arrays of log-probabilities, in their own number format."""
    if len(targets) == 1:
        return targets[0]
    mean = np.empty_like(targets[0])
    for start in range(0, len(mean), _ROWS):
        rows = np.stack([values[start : start + _ROWS].astype(np.float32) for values in targets])
        mean[start : start + _ROWS] = logsumexp(rows, axis=0) - np.log(len(targets))
    return mean
