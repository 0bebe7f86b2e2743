"""Rounds of processes that take turns: whatever else the machine does hits all alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from edgeicl.bench.kept_rounds import KeptRounds
from edgeicl.bench.quiet import settled_share
from edgeicl.errors import BenchError
from edgeicl.progress import track
from edgeicl.specs.comparison import NotMeasured

log = logging.getLogger(__name__)

NOISY_WIDTH = 0.15
"""Of an interval as a share of its median: where it is wider, rounds disagree."""
ONE_ROUND = "one round only: how far times vary is unknown"


class TakesPart(Protocol):
    """Whoever takes part: `run` is one process more; what the processes of whole rounds gave is in `runs`."""

    runs: list[dict[str, Any]]

    @property
    def name(self) -> str: ...

    def run(self) -> dict[str, Any]: ...


Theirs = TypeVar("Theirs", bound=TakesPart)


@dataclass
class Course:
    """What happened beside the figures."""

    failed: list[NotMeasured] = field(default_factory=list)
    other_work: list[float] = field(default_factory=list)
    """Share of the computer that others had before each round, where that is known."""
    resumed: list[str] = field(default_factory=list)
    """When rounds were measured that come from a run which was interrupted."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One, where there are such rounds."""
        if not self.resumed:
            return ()
        rounds = "round was" if len(self.resumed) == 1 else "rounds were"
        return (f"{len(self.resumed)} {rounds} measured before an interruption, from {self.resumed[0]} on",)


def run_rounds(
    ours: Sequence[TakesPart],
    theirs: list[Theirs],
    rounds: int,
    *,
    most_rounds: int = 0,
    doubts: Callable[[], Sequence[str]] = tuple,
    kept: KeptRounds | None = None,
    run: int = 0,
) -> Course:
    """Runs all once a round, every other time in reverse; takes those that fail out of `theirs`.

    It ends early when all of them have failed.

    Args:
        most_rounds: While there are `doubts` about what `rounds` rounds gave, more follow, up to so many.
        kept: Where rounds of an interrupted run are found, and these are kept, under the number `run`. A round
            in which somebody failed is not: it is tried again.

    Raises:
        BenchError: one of `ours` failed.
    """
    course = Course()
    before = _kept_rounds(ours, theirs, kept, run, most=max(rounds, most_rounds))
    for found in before:
        course.resumed.append(found["when"])
        _take(found, ours, theirs, course)
    if before:
        log.info("going on after %s", course.notes[0])
    done, entrants = len(before), len(ours) + len(theirs)

    def one_more(advance: Callable[[int], None]) -> None:
        nonlocal done
        found = _measured(ours, theirs, backwards=done % 2 == 1, advance=advance)
        if kept and not found["failed"]:
            kept.keep(run, done, found)
        _take(found, ours, theirs, course)
        done += 1

    with track(
        f"processes of {rounds} rounds", rounds * entrants, already_done=min(done, rounds) * entrants
    ) as advance:
        while done < rounds and theirs:
            one_more(advance)
    while done < most_rounds and theirs and (why := doubts()):
        log.info("%s; another round, number %d of at most %d", "; ".join(why), done + 1, most_rounds)
        with track(f"processes of round {done + 1}", len(ours) + len(theirs)) as advance:
            one_more(advance)
    return course


def _kept_rounds(
    ours: Sequence[TakesPart], theirs: Sequence[TakesPart], kept: KeptRounds | None, run: int, *, most: int
) -> list[dict[str, Any]]:
    """The first rounds of an interrupted run, as far as all that take part took part."""
    before: list[dict[str, Any]] = []
    while kept and len(before) < most and (found := kept.round(run, len(before))) is not None:
        sides = (("ours", ours), ("theirs", theirs))
        if not all(one.name in found[side] for side, entrants in sides for one in entrants):
            break
        before.append(found)
    return before


def _measured(
    ours: Sequence[TakesPart], theirs: Sequence[TakesPart], *, backwards: bool, advance: Callable[[int], None]
) -> dict[str, Any]:
    """One round, as JSON values: what each gave, who failed, and what others took before."""
    found: dict[str, Any] = {"other_work": settled_share(), "ours": {}, "theirs": {}, "failed": {}}
    turns = [*(("ours", one) for one in ours), *(("theirs", one) for one in theirs)]
    for side, entrant in reversed(turns) if backwards else turns:
        try:
            found[side][entrant.name] = entrant.run()
        except BenchError as error:
            if side == "ours":
                raise
            log.warning("%s", error)
            found["failed"][entrant.name] = str(error)
        advance(1)
    return found


def _take(found: dict[str, Any], ours: Sequence[TakesPart], theirs: list[Theirs], course: Course) -> None:
    """Hands a round to those that took part in it."""
    if found["other_work"] is not None:
        course.other_work.append(found["other_work"])
    course.failed += [NotMeasured(name=name, reason=reason) for name, reason in found["failed"].items()]
    theirs[:] = [one for one in theirs if one.name in found["theirs"]]
    for side, entrants in (("ours", ours), ("theirs", theirs)):
        for entrant in entrants:
            entrant.runs.append(found[side][entrant.name])
