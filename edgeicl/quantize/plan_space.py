"""Every plan that there can be for one model on one target, and what each takes: known before any measuring."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeicl.models.anatomy import EMBEDDING, Anatomy, WeightGroup
from edgeicl.numerics.size import group_bytes, held_bytes
from edgeicl.quantize.allocation import (
    Limit,
    LossTable,
    SizeTable,
    allocate,
    merged,
    plan_bytes,
    smallest_bytes,
)
from edgeicl.quantize.budget import WeightBudget
from edgeicl.quantize.latency import DecodeTime, read_bytes
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.target import Calibration

log = logging.getLogger(__name__)

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
    """

    formats: Sequence[Format]
    stored: SizeTable
    held: SizeTable
    units: Mapping[str, str]
    budget: WeightBudget
    decode: DecodeTime | None = None

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
        of_time = [] if self.decode is None else self.decode.limits
        return [*self.budget.limits(self.stored, self.held), *of_time]

    def require(self, plan: Plan, *, what: str) -> None:
        """BudgetError, naming `what`, if the plan breaks a limit."""
        self.budget.require(
            stored_bytes=plan_bytes(plan, self.stored), held_bytes=plan_bytes(plan, self.held), what=what
        )
        if self.decode is not None:
            self.decode.require(plan_bytes(plan, self.decode.reads), what=what)

    def require_any(self) -> None:
        """BudgetError unless some plan keeps all limits; names the smallest size that would."""
        stored, held = merged(self.stored, self.units), merged(self.held, self.units)
        self.budget.require(
            stored_bytes=smallest_bytes(stored),
            held_bytes=smallest_bytes(held),
            what="the smallest plan of its formats",
        )
        further: dict[str, Limit] = {}
        if self.decode is not None:
            reads = merged(self.decode.reads, self.units)
            self.decode.require_any(reads)
            for limit in self.decode.limits:
                further[f"budget.decode_ms {self.decode.limit_ms:g}"] = Limit(reads, limit.limit_bytes)
        self.budget.require_together(stored, held, further)

    def decode_ms(self, plan: Plan) -> float | None:
        """Predicted milliseconds of a decoded token."""
        return None if self.decode is None else self.decode.ms(plan)

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


def plan_space(
    anatomy: Anatomy,
    formats: Sequence[Format],
    budget: WeightBudget,
    *,
    by_block: bool,
    label_head: bool = False,
    calibration: Calibration | None = None,
    decode_limit_ms: float | None = None,
) -> PlanSpace:
    """The plans of a model's groups in `formats`.

    Args:
        by_block: Whether all groups of a decoder block share a format.
        label_head: Whether labels' rows are the head; then tokens are looked up in the embedding, and none
            decoded.
        calibration: What the time of a decoded token is predicted by.
        decode_limit_ms: The most that it may take.
    """
    offered = {group: offered_formats(group, formats) for group in anatomy.groups}
    unused = [str(f) for f in formats if not any(f in fitting for fitting in offered.values())]
    if unused:
        log.info("no weight group has rows that blocks of %s divide", ", ".join(unused))

    def multiplied(group: WeightGroup) -> bool:
        return anatomy.multiplies(group) and not (label_head and group.name == EMBEDDING)

    def held(group: WeightGroup, format_: Format) -> int:
        looked_up = group.name == EMBEDDING
        return held_bytes(*group.shape, format_, looked_up=looked_up, multiplied=multiplied(group))

    decode = None
    if calibration is not None and not label_head:
        decode = DecodeTime(
            budget.target,
            reads={
                g.name: {f: read_bytes(g.shape, f, calibration) if multiplied(g) else 0 for f in each}
                for g, each in offered.items()
            },
            rest_bytes=budget.decoded_rest_bytes,
            bandwidth_bytes_per_second=calibration.bandwidth_bytes_per_second,
            fixed_ms=calibration.fixed_decode_ms,
            limit_ms=decode_limit_ms,
        )
    return PlanSpace(
        formats,
        stored={g.name: {f: group_bytes(*g.shape, f) for f in fitting} for g, fitting in offered.items()},
        held={g.name: {f: held(g, f) for f in fitting} for g, fitting in offered.items()},
        units={
            group.name: f"layers.{group.layer}" if by_block and group.layer is not None else group.name
            for group in anatomy.groups
        },
        budget=budget,
        decode=decode,
    )
