"""Whether a measurement is to be believed: what its repetitions and other processes say against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeicl.bench.quiet import disquiet
from edgeicl.bench.summary import NOISY_SPREAD_RATIO, middle_spread, spread_ratio, timed_speeds
from edgeicl.errors import BenchError


def objections(run: Mapping[str, Any], other_work: Sequence[float]) -> list[str]:
    """Reasons to measure again: the middle half of the repetitions disagrees, or others were at work.

    Repetitions of a few milliseconds agree even while something else slows all of them; hence the second.
    """
    told = [
        f"{what} speed varied by {spread:.1%} in the middle half of the repetitions (above "
        f"{NOISY_SPREAD_RATIO:.0%})"
        for what, speeds in timed_speeds(run).items()
        if (spread := middle_spread(speeds) or 0.0) > NOISY_SPREAD_RATIO
    ]
    others = disquiet(other_work)
    return told if others is None else [*told, others]


def remarks(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What doesn't move a median and is told all the same: a lone slow repetition, or no second one."""
    notes = []
    for what, speeds in timed_speeds(run).items():
        spread, middle = spread_ratio(speeds), middle_spread(speeds)
        if spread is not None and middle is not None and middle <= NOISY_SPREAD_RATIO < spread:
            notes.append(
                f"a slow or fast repetition, which moves no median: {what} speeds are {spread:.0%} apart"
            )
    if len(run["first_token_ms"]) < 2:
        notes.append("one repetition only: the spread is unknown")
    return tuple(notes)


def require_no_doubt(doubts: Sequence[str]) -> None:
    """BenchError that tells what speaks against figures; they are shown already."""
    if doubts:
        raise BenchError(
            "\n  ".join(["figures that something speaks against:", *doubts]),
            next_step="end what else runs here and measure again, in more rounds or with more tokens; or with "
            "--accept-noise",
        )


def disagreeing_tests(samples_ms: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """A note on tests, by name, whose repetitions disagree."""
    noisy = [
        f"{name} by {spread:.0%}"
        for name, taken in samples_ms.items()
        if (spread := middle_spread([1.0 / value for value in taken]) or 0.0) > NOISY_SPREAD_RATIO
    ]
    return (f"noisy tests, varying in the middle half of their repetitions: {', '.join(noisy)}",) * bool(noisy)
