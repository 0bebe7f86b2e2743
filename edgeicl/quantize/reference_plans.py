"""Plans that others would make within the same limits, to stand beside the chosen one in the report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product

from edgeicl.errors import BudgetError
from edgeicl.models.anatomy import WeightGroup
from edgeicl.quantize.allocation import Limit, SizeTable, allocate, merged, plan_bytes
from edgeicl.quantize.block_losses import block_loss, typical_error
from edgeicl.quantize.plan_space import Plan, PlanSpace
from edgeicl.specs.quant_plan import Format

log = logging.getLogger(__name__)

LSAQ, FIRST_AND_LAST = "LSAQ", "first and last layers"


def reference_plans(
    groups: Sequence[WeightGroup], space: PlanSpace, similarities: Sequence[float]
) -> dict[str, Plan]:
    """Name -> plan, of LSAQ and of the rule of thumb; without one that has no plan within the limits.

    `similarities`: the Jaccard similarity of each block, 0 to 1.
    """
    if all(group.layer is None for group in groups):  # nothing is known of blocks
        return {}
    found = {
        LSAQ: lsaq_plan(groups, space.stored, space.limits, similarities),
        FIRST_AND_LAST: first_and_last_plan(groups, space.stored, space.limits),
    }
    for name in (name for name, plan in found.items() if plan is None):
        log.info("the report's curve has no point for %s: it has no plan within the target's limits", name)
    return {name: plan for name, plan in found.items() if plan is not None}


def lsaq_plan(
    groups: Sequence[WeightGroup], stored: SizeTable, limits: Sequence[Limit], similarities: Sequence[float]
) -> dict[str, Format] | None:
    """Whole blocks in one format each, the higher the less alike their input and output (arXiv 2412.18135)."""
    units = {group.name: group.name if group.layer is None else f"layers.{group.layer}" for group in groups}
    importances = [1.0 - similarity for similarity in similarities]
    losses = {
        group.name: {f: block_loss(group, importances, typical_error(f)) for f in stored[group.name]}
        for group in groups
    }
    try:
        by_unit = allocate(
            merged(losses, units), [Limit(merged(limit.sizes, units), limit.limit_bytes) for limit in limits]
        )
    except BudgetError:
        return None
    return {group: by_unit[unit] for group, unit in units.items()}


def first_and_last_plan(
    groups: Sequence[WeightGroup], stored: SizeTable, limits: Sequence[Limit]
) -> dict[str, Format] | None:
    """More bits for the first and the last block and for what lies outside of blocks: the most that fit.

    None where no two formats fit, or no block lies between.
    """
    last = max((group.layer for group in groups if group.layer is not None), default=0)
    offered = list(dict.fromkeys(format_ for by_format in stored.values() for format_ in by_format))
    plans = []
    for high, low in product(offered, offered):
        plan = {group.name: high if group.layer in (0, last, None) else low for group in groups}
        possible = high.bits > low.bits and all(f in stored[group] for group, f in plan.items())
        if possible and all(limit.kept_by(plan) for limit in limits):
            plans.append(plan)
    if last < 2:
        return None
    return max(plans, key=lambda plan: (plan_bytes(plan, stored), *map(str, plan.values())), default=None)
