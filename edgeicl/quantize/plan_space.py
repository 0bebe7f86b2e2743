"""Every plan that there can be for one model on one target, and what each takes: known before any measuring.

`possible_plans` says which there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
        of_time = [limit for time in (self.decode, self.first) if time is not None for limit in time.limits]
        return [*self.budget.limits(self.stored, self.held), *of_time]

    def require(self, plan: Plan, *, what: str) -> None:
        """BudgetError, naming `what`, if a given plan breaks a limit."""
        edit = f"or edit {what}: fewer bits for some groups"
        self.budget.require(
            stored_bytes=plan_bytes(plan, self.stored),
            held_bytes=plan_bytes(plan, self.held),
            what=what,
            instead=edit,
        )
        if self.decode is not None:
            self.decode.require(plan_bytes(plan, self.decode.reads), what=what, instead=edit)
        if self.first is not None:
            faster = f"or edit {what}: faster formats for some groups"
            self.first.require(plan_bytes(plan, self.first.nanoseconds), what=what, instead=faster)

    @property
    def alternatives(self) -> tuple[PlanSpace, ...]:
        """This space and all others."""
        return self, *self.others

    def require_smallest(self) -> None:
        """BudgetError unless some plan keeps each limit of bytes; names the smallest size that would."""
        self.budget.require(
            stored_bytes=smallest_bytes(merged(self.stored, self.units)),
            held_bytes=smallest_bytes(merged(self.held, self.units)),
            what="the smallest plan of its formats",
        )

    def require_decode(self) -> None:
        """BudgetError unless some plan keeps the limit of a decoded token; names the least time."""
        if self.decode is not None:
            self.decode.require_any(merged(self.decode.reads, self.units))

    def require_first_token(self) -> None:
        """BudgetError unless some plan keeps the limit of a prompt; names the least time."""
        if self.first is not None:
            self.first.require_any(merged(self.first.nanoseconds, self.units))

    def require_together(self) -> None:
        """BudgetError unless some plan keeps all limits at once, where each alone can be kept."""
        further: dict[str, Limit] = {}
        if self.decode is not None:
            for limit in self.of_units(self.decode.limits):
                further[f"budget.decode_ms {self.decode.limit_ms:g}"] = limit
        if self.first is not None:
            for limit in self.of_units(self.first.limits):
                further[f"budget.first_token_ms {self.first.limit_ms:g}"] = limit
        self.budget.require_together(merged(self.stored, self.units), merged(self.held, self.units), further)

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
