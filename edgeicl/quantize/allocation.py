"""Which format each unit gets: the least total loss that fits in the bytes there are, exactly.

A multiple-choice knapsack with a row for each kind of memory, solved as an integer program by HiGHS. A unit is
whatever shares one format: a weight group, or a whole decoder block. Losses may be negative or not monotone in
bits, as measured ones are.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from edgeicl.errors import BudgetError, DataError, EdgeiclError
from edgeicl.specs.quant_plan import Format

LossTable = Mapping[str, Mapping[Format, float]]
SizeTable = Mapping[str, Mapping[Format, int]]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Limit:
    """All units together may take `limit_bytes`; `sizes` says what each takes in each format."""

    sizes: SizeTable
    limit_bytes: int

    def kept_by(self, plan: Mapping[str, Format]) -> bool:
        return plan_bytes(plan, self.sizes) <= self.limit_bytes


_INFEASIBLE = 2  # of scipy.optimize.milp
_LARGEST_OBJECTIVE = 1e6  # HiGHS stops at an absolute gap of 1e-6: twelve digits below the largest loss


def allocate(losses: LossTable, limits: Sequence[Limit]) -> dict[str, Format]:
    """Unit -> format with the least sum of losses among all choices that keep every limit.

    Equal inputs give equal results. Two choices whose losses differ by less than 1e-12 of the largest loss
    count as equal.

    Raises:
        BudgetError: no choice fits; `smallest_bytes` is the least that the broken limit would have to be.
        DataError: a loss that is not finite.
    """
    wrong = [
        f"{unit} in {f}: {loss}" for unit in losses for f, loss in losses[unit].items() if not isfinite(loss)
    ]
    if wrong:
        raise DataError(f"losses must be finite to be compared, found {'; '.join(wrong)}")
    for limit in limits:
        if (least := smallest_bytes(limit.sizes)) > limit.limit_bytes:
            raise BudgetError(
                f"no choice of formats fits in {limit.limit_bytes} bytes of weights; the least is {least}",
                smallest_bytes=least,
            )
    choices = {unit: _worthwhile(losses[unit], [limit.sizes[unit] for limit in limits]) for unit in losses}
    best = {unit: formats[0] for unit, formats in choices.items()}
    if all(limit.kept_by(best) for limit in limits):
        return best
    forbidden: list[dict[str, Format]] = []
    while True:
        plan = _solve(choices, losses, limits, forbidden)
        if all(limit.kept_by(plan) for limit in limits):
            return plan
        # HiGHS lets a row be violated by a millionth of its scale; a byte is a byte
        forbidden.append(plan)


def merged(
    table: Mapping[str, Mapping[Format, Number]], units: Mapping[str, str]
) -> dict[str, dict[Format, Number]]:
    """The table of units from that of their members: sums, for the formats that all members have.

    `units` says which unit each member belongs to.
    """
    sums: dict[str, dict[Format, Number]] = {}
    for member, by_format in table.items():
        unit = units[member]
        if unit not in sums:
            sums[unit] = dict(by_format)
        else:
            sums[unit] = {f: sums[unit][f] + by_format[f] for f in sums[unit] if f in by_format}
    return sums


def plan_bytes(plan: Mapping[str, Format], sizes: SizeTable) -> int:
    """Bytes of all units in their formats."""
    return sum(sizes[unit][format_] for unit, format_ in plan.items())


def smallest_bytes(sizes: SizeTable) -> int:
    """Bytes of all units, each in the format that is smallest for it."""
    return sum(min(by_format.values()) for by_format in sizes.values())


def plan_loss(plan: Mapping[str, Format], losses: LossTable) -> float:
    """Sum of the losses of all units in their formats."""
    return sum(losses[unit][format_] for unit, format_ in plan.items())


def _worthwhile(losses: Mapping[Format, float], sizes: Sequence[Mapping[Format, int]]) -> list[Format]:
    """By rising loss, the formats that no better one beats in every size too."""
    kept: list[Format] = []
    for format_ in sorted(losses, key=lambda f: (losses[f], *(size[f] for size in sizes), str(f))):
        if not any(all(size[better] <= size[format_] for size in sizes) for better in kept):
            kept.append(format_)
    return kept


def _solve(
    choices: Mapping[str, Sequence[Format]],
    losses: LossTable,
    limits: Sequence[Limit],
    forbidden: Sequence[Mapping[str, Format]],
) -> dict[str, Format]:
    columns = [(unit, format_) for unit, formats in choices.items() for format_ in formats]
    # Losses above each unit's least one: a constant less, so that the digits go to what differs.
    cost = np.array([losses[unit][f] - losses[unit][choices[unit][0]] for unit, f in columns])
    cost = cost / (cost.max() or 1.0) * _LARGEST_OBJECTIVE
    one_each = np.array([[unit == row for unit, _ in columns] for row in choices], float)
    constraints = [LinearConstraint(one_each, 1, 1)]
    for limit in limits:
        # Bytes above each unit's smallest format, in their greatest common divisor: small whole numbers. Half
        # of one more is allowed, far from either side for the solver's tolerance; scaled to a limit of 1.
        extra = np.array([limit.sizes[unit][f] - min(limit.sizes[unit].values()) for unit, f in columns])
        spare = limit.limit_bytes - smallest_bytes(limit.sizes)
        divisor = max(1, int(np.gcd.reduce(extra)))
        weight = (extra // divisor) / (spare // divisor + 0.5)
        constraints.append(LinearConstraint(weight[None, :], -np.inf, 1))
    for plan in forbidden:
        same = np.array([[plan[unit] == format_ for unit, format_ in columns]], float)
        constraints.append(LinearConstraint(same, -np.inf, len(choices) - 1))
    with _stdout_kept_clean():
        result = milp(
            cost,
            integrality=np.ones(len(columns), dtype=np.int64),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": 0.0},
        )
    if result.status == _INFEASIBLE and len(limits) > 1:
        raise BudgetError(
            "no choice of formats keeps all limits at once, though each alone can be kept: "
            + ", ".join(str(limit.limit_bytes) for limit in limits),
            smallest_bytes=max(smallest_bytes(limit.sizes) for limit in limits),
            next_step="raise one of the budgets, or offer formats with fewer bits",
        )
    if result.x is None:
        raise EdgeiclError(f"allocation: the solver found no plan where one exists: {result.message}")
    return {unit: format_ for (unit, format_), chosen in zip(columns, result.x, strict=True) if chosen > 0.5}


@contextmanager
def _stdout_kept_clean() -> Iterator[None]:
    """Sends what C code prints to nowhere: HiGHS prints a debugging line past its own switch for logs."""
    sys.stdout.flush()
    stdout = os.dup(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        if os.name == "posix":
            ctypes.CDLL(None).fflush(None)
        os.dup2(stdout, 1)
        os.close(stdout)
