"""Rounds of processes that take turns: whatever else the machine does hits all alike."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol, TypeVar

from edgeicl.bench.quiet import busy_share
from edgeicl.errors import BenchError
from edgeicl.progress import track
from edgeicl.specs.comparison import NotMeasured

log = logging.getLogger(__name__)

NOISY_WIDTH = 0.15
"""Of an interval as a share of its median: where it is wider, rounds disagree."""


class TakesPart(Protocol):
    """Whoever takes part: `run` is one process more, and keeps what it gave."""

    @property
    def name(self) -> str: ...

    def run(self) -> None: ...


Theirs = TypeVar("Theirs", bound=TakesPart)


def run_rounds(
    ours: Sequence[TakesPart], theirs: list[Theirs], rounds: int
) -> tuple[list[NotMeasured], list[float]]:
    """Runs all once a round, every other time in reverse; takes those that fail out of `theirs`.

    Returns who failed, and what share of the computer others had before each round, where that is known.

    Raises:
        BenchError: one of `ours` failed.
    """
    failed, other_work = [], []
    with track("rounds", rounds * (len(ours) + len(theirs))) as advance:
        for number in range(rounds):
            if (share := busy_share()) is not None:
                other_work.append(share)
            order: list[TakesPart] = [*ours, *theirs]
            for entrant in reversed(order) if number % 2 else order:
                try:
                    entrant.run()
                except BenchError as error:
                    if any(entrant is one for one in ours):
                        raise
                    log.warning("%s", error)
                    theirs[:] = [one for one in theirs if one is not entrant]
                    failed.append(NotMeasured(name=entrant.name, reason=str(error)))
                advance(1)
    return failed, other_work
