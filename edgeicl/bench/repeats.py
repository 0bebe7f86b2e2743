"""The same comparison several times over: whether its ratios can be had again.

What varies between rounds of one run is in its intervals; what varies between runs (where the system put the
processes' memory, how warm the computer is, who else was there) only other runs show.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from edgeicl.bench.compare import Contest
from edgeicl.bench.quiet import QUIET_SHARE
from edgeicl.specs.comparison import RATIOS, Comparison, Ratio, RatioName, Repeat, RepeatedComparison

ALLOWED_DEVIATION = 0.05


def run_repeatedly(contest: Contest, *, runs: int, rounds: int, most_rounds: int = 0) -> RepeatedComparison:
    """`runs` comparisons of `rounds` rounds or more each. BenchError as in `Contest.run`."""
    with contest.kept:
        return repeated([contest.run(rounds, most_rounds=most_rounds, number=number) for number in range(runs)])


def repeated(runs: Sequence[Comparison]) -> RepeatedComparison:
    """What several runs of one comparison have in common."""
    quiet = is_quiet(runs)
    medians: dict[tuple[str, str, RatioName], list[float]] = {}
    for run in runs:
        for pairing in run.pairings:
            for what in RATIOS:
                ratio: Ratio | None = getattr(pairing, what)
                if ratio is not None:
                    medians.setdefault((pairing.artifact, pairing.rival, what), []).append(ratio.median)
    repeats = []
    for (artifact, rival, what), found in medians.items():
        if len(found) < len(runs):
            continue  # a rival that failed in one of them
        middle = median(found)
        deviation = max(abs(value / middle - 1.0) for value in found)
        repeats.append(
            Repeat(
                artifact=artifact,
                rival=rival,
                what=what,
                medians=tuple(found),
                median=middle,
                deviation=deviation,
                repeats=quiet is not False and deviation <= ALLOWED_DEVIATION,
            )
        )
    notes = []
    if quiet is False:
        busiest = max(share for run in runs for share in run.other_work)
        notes.append(
            f"this computer was not quiet: other processes took up to {busiest:.0%} of the cores' time before "
            f"a round (above {QUIET_SHARE:.0%}), so nothing here is called repeatable; end them and try again"
        )
    if quiet is None:
        notes.append("this system doesn't tell what other processes take: whether it was quiet is not known")
    return RepeatedComparison(
        runs=tuple(runs),
        allowed_deviation=ALLOWED_DEVIATION,
        quiet=quiet,
        doubts=tuple(f"run {number}: {doubt}" for number, run in enumerate(runs, 1) for doubt in run.doubts),
        repeats=tuple(repeats),
        notes=tuple(notes),
    )


def is_quiet(runs: Sequence[Comparison]) -> bool | None:
    """Whether others took next to nothing before every round; None where that isn't known of all."""
    if not all(run.other_work for run in runs):
        return None
    return all(share <= QUIET_SHARE for run in runs for share in run.other_work)
