"""The exceptions of edgeicl and the exit codes they become.

    EdgeiclError          1   anything below that has no code of its own
    |-- SpecError         2   a recipe, target, plan or option that can't be used; lists every problem
    |-- GainError         3   the teacher gains nothing from demonstrations
    |-- BudgetError       4   no plan keeps the target's limits of memory and time
    |-- QualityError      5   the artifact is worse than the recipe's limits allow
    |-- ParityError       6   the artifact computes something else than the model it was made from
    |-- DataError         7   data or a model that is missing, unreadable or doesn't fit
    |-- IntegrityError    8   a file is not the one that was written (hash)
    |-- BenchError        9   a measurement that could not be taken or can't be trusted
    `-- DeviationError   10   something asked for was not done, and --strict forbids that

Codes 0 (success), 130 (interrupted) and 143 (terminated) complete the list. A message says what failed,
where, what was found, what was expected and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class EdgeiclError(Exception):
    """Something the user can act on. `next_step` is the last line of the printed message."""

    exit_code = 1

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\nnext: {self.next_step}" if self.next_step else message


@dataclass(frozen=True)
class Problem:
    """One mistake in a file: where it is, what was found there, and what would be accepted."""

    key: str
    found: str
    expected: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}" if self.line is not None else "command line"
        return f"  {where:<12}  {self.key:<36}  {self.found}; {self.expected}"


class SpecError(EdgeiclError):
    """A recipe, target, plan or option that can't be used. Carries every problem found."""

    exit_code = 2

    def __init__(
        self,
        source: str,
        problems: Sequence[Problem],
        *,
        next_step: str = "",
        others: Sequence[SpecError] = (),
    ) -> None:
        """`others`: errors of further files, told with this one; `placed` has each problem with its file."""
        self.source = source
        self.placed: tuple[tuple[str, Problem], ...] = (
            *((source, problem) for problem in problems),
            *(pair for error in others for pair in error.placed),
        )
        self.problems: tuple[Problem, ...] = tuple(problem for _, problem in self.placed)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        told = [f"{source}: {count}", *map(str, problems), *(str(error.args[0]) for error in others)]
        steps = dict.fromkeys(filter(None, [next_step, *(error.next_step for error in others)]))
        super().__init__("\n".join(told), next_step="; ".join(steps))


class GainError(EdgeiclError):
    """The teacher gains nothing from demonstrations, so distilling from it would do harm."""

    exit_code = 3


class BudgetError(EdgeiclError):
    """No plan keeps the target's limits; `smallest_bytes` or `smallest_ms` is what the broken one needs."""

    exit_code = 4

    def __init__(
        self, message: str, *, smallest_bytes: int = 0, smallest_ms: float = 0.0, next_step: str = ""
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.smallest_bytes = smallest_bytes
        self.smallest_ms = smallest_ms


class QualityError(EdgeiclError):
    """The artifact is worse than the recipe's limits allow."""

    exit_code = 5


class ParityError(EdgeiclError):
    """The artifact computes something else than the model it was made from."""

    exit_code = 6


class DataError(EdgeiclError):
    """Data or a model that is missing, unreadable, or doesn't fit the task."""

    exit_code = 7


class IntegrityError(EdgeiclError):
    """A file is not the one that was written: its hash differs."""

    exit_code = 8


class BenchError(EdgeiclError):
    """A measurement that could not be taken, or can't be trusted."""

    exit_code = 9


class DeviationError(EdgeiclError):
    """Something asked for was not done, and `--strict` makes that an error."""

    exit_code = 10


class RegressionError(EdgeiclError):
    """A measurement is worse than its baseline by more than `--fail-if` allows."""

    exit_code = 11
