"""Which format each unit gets: the least total loss that fits in a number of bytes, exactly.

A multiple-choice knapsack, solved as an integer program by HiGHS. A unit is whatever shares one format: a
weight group, or a whole decoder block. Losses may be negative or not monotone in bits, as measured ones are.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

_LARGEST_OBJECTIVE = 1e6  # HiGHS stops at an absolute gap of 1e-6: twelve digits below the largest loss


def allocate(losses: LossTable, sizes: SizeTable, budget_bytes: int) -> dict[str, Format]:
    """Unit -> format with the least sum of losses among all choices of at most `budget_bytes`.

    Equal inputs give equal results. Two choices whose losses differ by less than 1e-12 of the largest loss
    count as equal.

    Raises:
        BudgetError: no choice fits; `smallest_bytes` is the size of the smallest one.
        DataError: a loss that is not finite.
    """
    wrong = [
        f"{unit} in {f}: {loss}" for unit in losses for f, loss in losses[unit].items() if not isfinite(loss)
    ]
    if wrong:
        raise DataError(f"losses must be finite to be compared, found {'; '.join(wrong)}")
    choices = {unit: _worthwhile(losses[unit], sizes[unit]) for unit in losses}
    smallest = {unit: formats[-1] for unit, formats in choices.items()}
    smallest_bytes = plan_bytes(smallest, sizes)
    if smallest_bytes > budget_bytes:
        raise BudgetError(
            f"no choice of formats fits in {budget_bytes} bytes of weights; the least is {smallest_bytes}",
            smallest_bytes=smallest_bytes,
        )
    best = {unit: formats[0] for unit, formats in choices.items()}
    if plan_bytes(best, sizes) <= budget_bytes:
        return best
    forbidden: list[dict[str, Format]] = []
    while True:
        plan = _solve(choices, losses, sizes, budget_bytes, forbidden)
        if plan_bytes(plan, sizes) <= budget_bytes:
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


def plan_loss(plan: Mapping[str, Format], losses: LossTable) -> float:
    """Sum of the losses of all units in their formats."""
    return sum(losses[unit][format_] for unit, format_ in plan.items())


def _worthwhile(losses: Mapping[Format, float], sizes: Mapping[Format, int]) -> list[Format]:
    """The formats that no other one beats in both size and loss: by rising loss, and so by falling size."""
    kept: list[Format] = []
    for format_ in sorted(losses, key=lambda f: (losses[f], sizes[f], str(f))):
        if not kept or sizes[format_] < sizes[kept[-1]]:
            kept.append(format_)
    return kept


def _solve(
    choices: Mapping[str, Sequence[Format]],
    losses: LossTable,
    sizes: SizeTable,
    budget_bytes: int,
    forbidden: Sequence[Mapping[str, Format]],
) -> dict[str, Format]:
    columns = [(unit, format_) for unit, formats in choices.items() for format_ in formats]
    # Losses above each unit's least one: a constant less, so that the digits go to what differs.
    cost = np.array([losses[unit][f] - losses[unit][choices[unit][0]] for unit, f in columns])
    cost = cost / cost.max() * _LARGEST_OBJECTIVE
    # Bytes above each unit's smallest format, in their greatest common divisor: small whole numbers. Half of
    # one more is allowed, far from either side for the solver's tolerance; the row is scaled to a limit of 1.
    extra = np.array([sizes[unit][f] - sizes[unit][choices[unit][-1]] for unit, f in columns])
    spare = budget_bytes - sum(sizes[unit][formats[-1]] for unit, formats in choices.items())
    divisor = int(np.gcd.reduce(extra))
    weight = (extra // divisor) / (spare // divisor + 0.5)
    one_each = np.array([[unit == row for unit, _ in columns] for row in choices], float)
    constraints = [
        LinearConstraint(one_each, 1, 1),
        LinearConstraint(weight[None, :], -np.inf, 1),
    ]
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
