"""Every plan that there can be for one model on one target, and what each takes: known before any measuring.

`possible_plans` says which there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from edgeicl.errors import BudgetError
from edgeicl.quantize.allocation import (
    Limit,
    LossTable,
    SizeTable,
    allocate,
    merged,
    plan_bytes,
    plan_loss,
    smallest_bytes,
)
from edgeicl.quantize.budget import WeightBudget
from edgeicl.quantize.first_token import FirstTokenTime
from edgeicl.quantize.latency import DecodeTime
from edgeicl.specs.quant_plan import Format, PromptAttention

Plan = Mapping[str, Format]


@dataclass(frozen=True)
class AskedLimit:
    """A limit that the target sets.

    Args:
        value: In bytes or milliseconds, of everything.
        unit: Which of them.
        limit: What that leaves for the groups; may be negative.
        sizes: Group -> format -> what the limit is of.
        total: What everything takes when the groups take so much in all.
    """

    value: float
    unit: Literal["bytes", "ms"]
    limit: Limit
    sizes: SizeTable
    total: Callable[[int], float]


@dataclass(frozen=True)
class PlanSpace:
    """The formats that each group may have, and the bytes of each.

    Args:
        formats: The target's.
        stored, held: Group -> format -> bytes in the artifact, and in the memory of the running process.
        units: Group -> what it shares its format with.
        budget: What the target leaves for the groups.
        decode: How long a token takes; None where that can't be predicted, or nothing is decoded.
        first: How long a prompt takes; None where that can't be predicted.
        prompt_format: Of the layers' second copy, if there is one.
        prompt_attention: How attention to a prompt goes through its scores.
        others: The same plans with other ways to read prompts.
    """

    formats: Sequence[Format]
    stored: SizeTable
    held: SizeTable
    units: Mapping[str, str]
    budget: WeightBudget
    decode: DecodeTime | None = None
    first: FirstTokenTime | None = None
    prompt_format: Format | None = None
    prompt_attention: PromptAttention = "tiled"
    others: tuple[PlanSpace, ...] = ()

    def chosen(self, losses: LossTable) -> tuple[PlanSpace, Plan]:
        """The best plan, and the space it is of: this one, or one with another way to read prompts.

        One with a second copy only where a limit of the first token's time makes the plans without lose more;
        of equal ones that with whole attention, which is there only where it is faster.
        """
        found: list[tuple[PlanSpace, Plan]] = []
        errors: list[BudgetError] = []
        for space in self.alternatives:
            try:
                found.append((space, space.best(losses, space.limits)))
            except BudgetError as error:
                errors.append(error)
        if not found:
            raise errors[0]

        def order(each: tuple[PlanSpace, Plan]) -> tuple[float, bool, bool]:
            space, plan = each
            return plan_loss(plan, losses), space.prompt_format is not None, space.prompt_attention == "tiled"

        return min(found, key=order)

    def reading_prompts(self, in_format: Format | None, attention: PromptAttention) -> PlanSpace | None:
        """This space, or the one that reads prompts so; None where the target has none."""
        so = (in_format, attention)
        return next((s for s in self.alternatives if (s.prompt_format, s.prompt_attention) == so), None)

    @property
    def smallest_stored_bytes(self) -> int:
        """Bytes of the groups in the smallest artifact there is."""
        return smallest_bytes(merged(self.stored, self.units))

    @property
    def groups_by_format(self) -> dict[Format, list[str]]:
        """Names of the groups that may have each of the formats."""
        return {f: [name for name, sizes in self.stored.items() if f in sizes] for f in self.formats}

    @property
    def limits(self) -> list[Limit]:
        """What is left for the groups under each limit given; may be negative."""
        return [asked.limit for asked in self.asked.values()]

    def require(self, plan: Plan, *, what: str, can_be_edited: bool = True) -> None:
        """BudgetError, naming `what`, if a given plan breaks a limit; advised is to edit it, if it can be."""
        if can_be_edited:
            fewer = f"or edit {what}: fewer bits for some groups"
            faster = f"or edit {what}: faster formats for some groups"
        else:
            fewer = "offer it formats with fewer bits, or choose a smaller student"
            faster = "or choose a smaller student"
        stored_bytes, held_bytes = plan_bytes(plan, self.stored), plan_bytes(plan, self.held)
        self.budget.require(stored_bytes=stored_bytes, held_bytes=held_bytes, what=what, instead=fewer)
        if self.decode is not None:
            self.decode.require(plan_bytes(plan, self.decode.reads), what=what, instead=fewer)
        if self.first is not None:
            self.first.require(plan_bytes(plan, self.first.nanoseconds), what=what, instead=faster)

    @property
    def alternatives(self) -> tuple[PlanSpace, ...]:
        """This space and all others."""
        return self, *self.others

    @cached_property
    def asked(self) -> dict[str, AskedLimit]:
        """The limits that the target sets, of groups, by their names."""
        budget, found = self.budget, {}
        for name, value, sizes, total in (
            ("budget.artifact_bytes", budget.artifact_limit_bytes, self.stored, budget.artifact_bytes),
            ("budget.resident_bytes", budget.resident_limit_bytes, self.held, budget.resident_bytes),
        ):
            if value is not None:
                found[name] = AskedLimit(value, "bytes", Limit(sizes, value - total(0)), sizes, total)
        if self.decode is not None and self.decode.limit_ms is not None:
            found["budget.decode_ms"] = AskedLimit(
                self.decode.limit_ms, "ms", self.decode.limit, self.decode.reads, self.decode.ms_of_bytes
            )
        if self.first is not None and self.first.limit_ms is not None:
            found["budget.first_token_ms"] = AskedLimit(
                self.first.limit_ms, "ms", self.first.limit, self.first.nanoseconds, self.first.ms_of
            )
        return found

    def decode_ms(self, plan: Plan) -> float | None:
        """Predicted milliseconds of a decoded token."""
        return None if self.decode is None else self.decode.ms(plan)

    def first_token_ms(self, plan: Plan) -> float | None:
        """Predicted milliseconds of reading a prompt."""
        return None if self.first is None else self.first.ms(plan)

    def best(self, losses: LossTable, limits: Sequence[Limit]) -> dict[str, Format]:
        """Group -> format with the least sum of losses (group -> format -> loss) within `limits`."""
        # No unit is without a format: blocks are powers of two, so the least that fits one group fits them all.
        return self.of_groups(allocate(merged(losses, self.units), self.of_units(limits)))

    def of_units(self, limits: Sequence[Limit]) -> list[Limit]:
        """Limits of groups as limits of units."""
        return [Limit(merged(limit.sizes, self.units), limit.limit_bytes) for limit in limits]

    def of_groups(self, by_unit: Plan) -> dict[str, Format]:
        """Group -> format, from unit -> format."""
        return {group: by_unit[unit] for group, unit in self.units.items()}

    def by_unit(self, plan: Plan) -> dict[str, Format]:
        """Unit -> format, from group -> format."""
        return {unit: plan[group] for group, unit in self.units.items()}

    def uniform(self) -> dict[Format, dict[str, Format]]:
        """The plan of each format that all groups can have."""
        everywhere = [f for f in self.formats if all(f in offered for offered in self.stored.values())]
        return {format_: dict.fromkeys(self.stored, format_) for format_ in everywhere}
