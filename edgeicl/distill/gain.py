"""What a teacher gains from demonstrations, and whether that is worth handing down."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeicl.errors import GainError
from edgeicl.numerics.statistics import estimate
from edgeicl.specs.measurement import Estimate
from edgeicl.specs.spec import Spec

log = logging.getLogger(__name__)

_STANDARD_ERRORS = 1.96
_SEEDS_FOR_AN_INTERVAL = 4


class Gain(Spec):
    """Balanced accuracy with demonstrations minus without, in points."""

    points: Estimate = Field(description="Over demonstration seeds.")
    chance_points: float = Field(description="What so few examples could show by chance: 1.96 standard errors.")
    with_demonstrations: dict[str, Estimate] = Field(description="Accuracy by label, over seeds.")
    without_demonstrations: dict[str, float] = Field(description="Accuracy by label.")
    examples: int


def measure_gain(
    with_demonstrations: Sequence[NDArray[Any]],
    without_demonstrations: NDArray[Any],
    gold: NDArray[np.int64],
    labels: Sequence[str],
) -> Gain:
    """Gain from label scores: one array [N, L] a seed, one [N, L] without; `gold` [N] has label indices.

    Two sources of error are kept apart: between demonstration seeds (the interval), and the finite set of
    examples, which all seeds share (`chance_points`, from paired differences within each label).
    """
    present = [label for label in range(len(labels)) if (gold == label).any()]
    shown = np.stack([scores.argmax(-1) == gold for scores in with_demonstrations]).astype(float)
    plain = (without_demonstrations.argmax(-1) == gold).astype(float)
    by_seed = [float(np.mean([(seed - plain)[gold == label].mean() for label in present])) for seed in shown]
    paired = shown.mean(0) - plain
    variance = sum(paired[gold == label].var() / (gold == label).sum() for label in present) / len(present) ** 2
    return Gain(
        points=estimate([100 * value for value in by_seed]),
        chance_points=float(100 * _STANDARD_ERRORS * variance**0.5),
        with_demonstrations={
            labels[label]: estimate([float(seed[gold == label].mean()) for seed in shown], within=(0.0, 1.0))
            for label in present
        },
        without_demonstrations={labels[label]: float(plain[gold == label].mean()) for label in present},
        examples=len(gold),
    )


def is_certain(gain: Gain) -> bool:
    """Whether it is clearly above zero: the interval over seeds is, and the mean is above chance."""
    return gain.points.low > 0 and gain.points.mean > gain.chance_points


def certain_gain(gain: Gain, *, required: bool) -> bool:
    """Whether the gain is certain; told where it isn't.

    Raises:
        GainError: it isn't, with the numbers, and it is `required`.
    """
    if is_certain(gain):
        return True
    if required:
        raise _refused(gain)
    log.warning(
        "the teacher gains nothing certain from demonstrations (%+.1f points), and distill.require_gain is "
        "false: what is learned from it may do harm",
        gain.points.mean,
    )
    return False


def _refused(gain: Gain) -> GainError:
    points = gain.points
    labels = "\n".join(
        f"  {label:<20} {100 * gain.without_demonstrations[label]:5.1f} % without, "
        f"{100 * shown.mean:5.1f} % with"
        for label, shown in gain.with_demonstrations.items()
    )
    return GainError(
        f"the teacher gains nothing certain from demonstrations: {points.mean:+.1f} points of balanced "
        f"accuracy, "
        f"{100 * points.confidence:.0f} % interval {points.low:+.1f} to {points.high:+.1f} over "
        f"{len(points.values)} demonstration seeds ({', '.join(f'{value:+.1f}' for value in points.values)}); "
        f"expected an interval above 0 and more than the {gain.chance_points:.1f} points that "
        f"{gain.examples} examples may show by chance. Accuracy by label:\n{labels}",
        next_step=f"{_advice(gain)}; or insist with distill.require_gain: false",
    )


def _advice(gain: Gain) -> str:
    seeds = len(gain.points.values)
    if gain.points.mean > gain.chance_points and seeds < _SEEDS_FOR_AN_INTERVAL:
        return (
            f"name more demonstration seeds: {seeds} give too wide an interval, "
            f"{_SEEDS_FOR_AN_INTERVAL} or more are usual"
        )
    shares = {label: shown.mean for label, shown in gain.with_demonstrations.items()}
    favourite = max(shares, key=shares.__getitem__)
    if shares[favourite] > 0.99 and all(share < 0.01 for label, share in shares.items() if label != favourite):
        return (
            f"with demonstrations it answers {favourite!r} to everything: take a teacher that can do this task "
            "and check that the words in task.verbalizers are ones that it would write there"
        )
    return "take another teacher or more demonstrations"
