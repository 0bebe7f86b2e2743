"""The size-loss curve: the best plan of each size, those that others would make, and the chosen one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from edgeicl.quantize.allocation import Limit, LossTable, plan_bytes, plan_loss
from edgeicl.quantize.plan_space import Plan, PlanSpace
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.curve import CurvePoint, SizeCurve

ALLOCATED_POINTS = 16

Kind = Literal["chosen", "uniform", "rule", "allocated"]


def size_curve(
    chosen: Plan,
    losses: LossTable,
    space: PlanSpace,
    *,
    loss_unit: str,
    measure: Callable[[Plan], float],
    rules: Mapping[str, Plan],
    refinement: Sequence[float] = (),
) -> SizeCurve:
    """The curve from the smallest plan to the largest one.

    Args:
        chosen: Group -> format, the plan that will be used.
        losses: Group -> format -> loss, for the formats that fit.
        space: The plans that there are. Each format that fits every group gives a uniform point.
        measure: KL in nats of the whole model stored by a plan; asked for all plans but the allocated.
        rules: Name -> plan by another rule within the same limits: see `reference_plans`.
        refinement: Measured losses on the way to the chosen plan: see `refinement.Refined`.
    """
    stored, budget = space.stored, space.budget

    def point(kind: Kind, label: str, plan: Plan, measured_loss: float | None = None) -> CurvePoint:
        stored_bytes = plan_bytes(plan, stored)
        return CurvePoint(
            kind=kind,
            label=label or f"best within {format_byte_size(budget.artifact_bytes(stored_bytes))}",
            artifact_bytes=budget.artifact_bytes(stored_bytes),
            resident_bytes=budget.resident_bytes(plan_bytes(plan, space.held)),
            predicted_loss=plan_loss(plan, losses),
            measured_loss=measured_loss,
        )

    points = [point("chosen", "chosen", chosen, measure(chosen))]
    points += [point("uniform", f"uniform {f}", plan, measure(plan)) for f, plan in space.uniform().items()]
    points += [point("rule", name, plan, measure(plan)) for name, plan in rules.items()]
    largest = sum(max(by_format.values()) for by_format in stored.values())
    allocated: dict[int, Plan] = {}
    # Equal ratios: between 2 and 4 bits there is as much to see as between 16 and 32.
    smallest = space.smallest_stored_bytes
    for limit in np.geomspace(smallest, largest, ALLOCATED_POINTS):
        plan = space.best(losses, [Limit(stored, max(round(limit), smallest))])
        allocated.setdefault(plan_bytes(plan, stored), plan)
    points += [point("allocated", "", plan) for plan in allocated.values()]
    return SizeCurve(
        loss_unit=loss_unit,
        artifact_budget_bytes=budget.artifact_limit_bytes,
        resident_budget_bytes=budget.resident_limit_bytes,
        refinement=tuple(refinement),
        points=tuple(sorted(points, key=lambda p: (p.artifact_bytes, p.kind, p.label))),
    )
