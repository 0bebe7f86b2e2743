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


class TakesPart(Protocol):
    """Whoever takes part: `run` is one process more, and appends what it gave to `runs`."""

    runs: list[dict[str, Any]]

    @property
    def name(self) -> str: ...

    def run(self) -> None: ...


Theirs = TypeVar("Theirs", bound=TakesPart)


@dataclass
class Course:
    """What happened beside the figures."""

    failed: list[NotMeasured] = field(default_factory=list)
    other_work: list[float] = field(default_factory=list)
    """Share of the computer that others had before each round, where that is known."""
    resumed: int = 0
    """Rounds that come from a run which was interrupted."""

    @property
    def notes(self) -> tuple[str, ...]:
        rounds = "round was" if self.resumed == 1 else "rounds were"
        return (f"{self.resumed} {rounds} measured before an interruption",) * bool(self.resumed)


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

    Args:
        most_rounds: While there are `doubts` about what `rounds` rounds gave, more follow, up to so many.
        kept: Where rounds of an interrupted run are found, and these are kept, under the number `run`.

    Raises:
        BenchError: one of `ours` failed.
    """
    course, number = Course(), 0

    def one_more(advance: Callable[[int], None]) -> None:
        nonlocal number
        found = kept.round(run, number) if kept else None
        if found is None:
            found = _measured(ours, theirs, backwards=number % 2 == 1, advance=advance)
            if kept:
                kept.keep(run, number, found)
        else:
            course.resumed += 1
            advance(len(ours) + len(theirs))
        _take(found, ours, theirs, course)
        number += 1

    entrants = len(ours) + len(theirs)
    with track("rounds", rounds * entrants) as advance:
        while number < rounds:
            one_more(advance)
    while number < most_rounds and theirs and (why := doubts()):
        log.info("%s; another round, at most %d", "; ".join(why), most_rounds)
        one_more(lambda _: None)
    return course


def _measured(
    ours: Sequence[TakesPart], theirs: Sequence[TakesPart], *, backwards: bool, advance: Callable[[int], None]
) -> dict[str, Any]:
    """One round, as JSON values: what each gave, who failed, and what others took before."""
    found: dict[str, Any] = {"other_work": settled_share(), "ours": {}, "theirs": {}, "failed": {}}
    turns = [*(("ours", one) for one in ours), *(("theirs", one) for one in theirs)]
    for side, entrant in reversed(turns) if backwards else turns:
        try:
            entrant.run()
            found[side][entrant.name] = entrant.runs.pop()
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
