"""Which bits the key/value cache gets: chosen together with the weight groups' formats.

There are few kinds of cache, so each gets the best plan of the groups in the memory that it leaves. One with
fewer bits is worth its own error, and the slower prompts that come with integers, only for what it buys: groups
that lose less, by the allocation's own measure. Those left are measured whole, and the best is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgeicl.errors import BudgetError
from edgeicl.quantize.allocation import LossTable, plan_loss
from edgeicl.quantize.conflicts import require_any
from edgeicl.quantize.plan_space import Plan, PlanSpace
from edgeicl.specs.quant_plan import CacheBits

PlanSpaces = Mapping[CacheBits, PlanSpace]
"""The plans that there are beside each kind of cache, the one with most bits first."""


@dataclass(frozen=True)
class Choice:
    """Bits of the cache, the format of every group, and the plans that this one is of."""

    cache_bits: CacheBits
    plan: Plan
    space: PlanSpace


def candidates(spaces: PlanSpaces, losses: LossTable) -> list[Choice]:
    """The best plan beside each cache, without those whose fewer bits buy nothing.

    Raises:
        BudgetError: no plan beside any cache keeps all limits.
    """
    require_any(spaces.values())
    found: list[Choice] = []
    least = float("inf")
    for bits, space in spaces.items():
        try:
            of, plan = space.chosen(losses)
        except BudgetError:
            continue
        loss = plan_loss(plan, losses)
        if loss < least:
            found.append(Choice(bits, plan, of))
            least = loss
    return found


def best_choice(choices: list[Choice], measure: Callable[[Choice], float]) -> Choice:
    """The choice of least loss; of equal ones that with more bits. One alone is not measured."""
    return choices[0] if len(choices) == 1 else min(choices, key=measure)
