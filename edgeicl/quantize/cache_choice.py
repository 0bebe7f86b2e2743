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


def require_any(spaces: PlanSpaces) -> None:
    """BudgetError unless some plan keeps all limits, beside some cache, in some way to read prompts.

    Told is the first limit that none keeps of the plans that keep those before it, and the least it would have
    to be for one of them.
    """
    left = [each for space in spaces.values() for each in space.alternatives]
    for require in (
        PlanSpace.require_smallest,
        PlanSpace.require_decode,
        PlanSpace.require_first_token,
        PlanSpace.require_together,
    ):
        kept: list[PlanSpace] = []
        errors: list[BudgetError] = []
        for space in left:
            try:
                require(space)
                kept.append(space)
            except BudgetError as error:
                errors.append(error)
        if not kept:
            raise min(errors, key=lambda error: (error.smallest_ms, error.smallest_bytes))
        left = kept


def candidates(spaces: PlanSpaces, losses: LossTable) -> list[Choice]:
    """The best plan beside each cache, without those whose fewer bits buy nothing.

    Raises:
        BudgetError: no plan beside any cache keeps all limits.
    """
    require_any(spaces)
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
