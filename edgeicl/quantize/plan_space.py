"""Every plan that there can be for one model on one target, and what each takes: known before any measuring."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgeicl.errors import BudgetError, DataError
from edgeicl.models.anatomy import EMBEDDING, Anatomy, WeightGroup
from edgeicl.numerics.decode_reads import read_bytes
from edgeicl.numerics.size import group_bytes, held_bytes, held_bytes_on_gpu
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
from edgeicl.quantize.first_token import FirstTokenTime, first_token_time
from edgeicl.quantize.latency import DecodeTime
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.specs.quant_plan import ActivationBits, Format, PromptAttention
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


def plan_space(
    anatomy: Anatomy,
    formats: Sequence[Format],
    budget: WeightBudget,
    *,
    by_block: bool,
    label_head: bool = False,
    calibration: Calibration | None = None,
    decode_limit_ms: float | None = None,
    provider: Literal["cpu", "cuda"] = "cpu",
    activation_bits: ActivationBits = 32,
    prompt_tokens: int = 1,
    first_token_limit_ms: float | None = None,
    prompt_format: Format | None = None,
    copy_advised: bool = False,
    score_bytes: int | None = None,
) -> PlanSpace:
    """The plans of a model's groups in `formats`.

    Args:
        by_block: Whether all groups of a decoder block share a format.
        label_head: Whether labels' rows are the head; then tokens are looked up in the embedding, and none
            decoded.
        calibration: What the time of a decoded token is predicted by.
        decode_limit_ms: The most that it may take.
        provider: Whose memory holds the groups.
        activation_bits: Of scales too.
        prompt_tokens: Prompt whose time is predicted.
        first_token_limit_ms: The most that it may take.
        prompt_format: Of a second copy of the layers' weights that may be stored to keep that limit.
        copy_advised: Whether the target should be told to offer one where the limit can't be kept.
        score_bytes: Of attention to the whole context at once, where that is possible. It is offered where it
            is faster, and where there is such a limit or nothing but prompts.

    Raises:
        DataError: a group that none of the formats fits.
    """
    offered = {group: offered_formats(group, formats) for group in anatomy.groups}
    if without := [group.name for group, fitting in offered.items() if not fitting]:
        raise DataError(
            f"none of the target's formats ({', '.join(map(str, formats))}) fits {', '.join(without)}",
            next_step="offer a format with a block_size in numbers, or a floating-point format",
        )
    if unused := [str(f) for f in formats if not any(f in fitting for fitting in offered.values())]:
        log.info("no weight group has rows that blocks of %s divide", ", ".join(unused))
    scale_bytes = activation_bits // 8

    def multiplied(group: WeightGroup) -> bool:
        return anatomy.multiplies(group) and not (label_head and group.name == EMBEDDING)

    def held(group: WeightGroup, format_: Format) -> int:
        looked_up = group.name == EMBEDDING
        if provider == "cuda":
            twice = looked_up and multiplied(group)
            return held_bytes_on_gpu(*group.shape, format_, scale_bytes=scale_bytes, looked_up=twice)
        return held_bytes(*group.shape, format_, looked_up=looked_up, multiplied=multiplied(group))

    decode = None
    if calibration is not None and not label_head:
        decode = DecodeTime(
            budget.target,
            reads={
                g.name: {
                    f: read_bytes(g.shape, f, calibration, scale_bytes) if multiplied(g) else 0 for f in each
                }
                for g, each in offered.items()
            },
            rest_bytes=budget.decoded_rest_bytes,
            bandwidth_bytes_per_second=calibration.bandwidth_bytes_per_second,
            fixed_ms=calibration.fixed_decode_ms_of(anatomy.layers),
            limit_ms=decode_limit_ms,
        )

    def first(copy: Format | None, attention: PromptAttention) -> FirstTokenTime | None:
        if calibration is None:
            return None
        return first_token_time(
            budget.target,
            anatomy,
            offered,
            calibration,
            prompt_tokens=prompt_tokens,
            limit_ms=first_token_limit_ms,
            multiplied=multiplied,
            prompt_format=copy,
            copy_advised=copy_advised,
            attention=attention,
        )

    space = PlanSpace(
        formats,
        stored={
            g.name: {f: group_bytes(*g.shape, f, scale_bytes=scale_bytes) for f in fitting}
            for g, fitting in offered.items()
        },
        held={g.name: {f: held(g, f) for f in fitting} for g, fitting in offered.items()},
        units={
            group.name: f"layers.{group.layer}" if by_block and group.layer is not None else group.name
            for group in anatomy.groups
        },
        budget=budget,
        decode=decode,
        first=first(None, "tiled"),
    )
    spaces = [space]
    if prompt_format is not None and first_token_limit_ms is not None:
        layers = [group for group in anatomy.groups if group.layer is not None]
        copy_bytes = sum(group_bytes(*group.shape, prompt_format) for group in layers)
        copied = budget.with_prompt_copy(anatomy.layers, copy_bytes)
        with_copy = first(prompt_format, "tiled")
        spaces.append(replace(space, budget=copied, first=with_copy, prompt_format=prompt_format))
    matters = first_token_limit_ms is not None or label_head
    if matters and score_bytes is not None and calibration and calibration.whole_attention_is_faster:
        spaces += [
            replace(
                each,
                budget=each.budget.with_whole_attention(score_bytes),
                first=first(each.prompt_format, "whole"),
                prompt_attention="whole",
            )
            for each in spaces
        ]
    return replace(space, others=tuple(spaces[1:]))
