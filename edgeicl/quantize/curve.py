"""The size-loss curve: the best plan for each size, every uniform plan, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from edgeicl.quantize.allocation import LossTable, SizeTable, plan_bytes, plan_loss
from edgeicl.quantize.budget import WeightBudget
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.curve import CurvePoint, SizeCurve
from edgeicl.specs.quant_plan import Format

ALLOCATED_POINTS = 16

Plan = Mapping[str, Format]
Kind = Literal["chosen", "uniform", "allocated"]


def size_curve(
    chosen: Plan,
    losses: LossTable,
    stored: SizeTable,
    held: SizeTable,
    *,
    budget: WeightBudget,
    formats: Sequence[Format],
    loss_unit: str,
    smallest_bytes: int,
    best: Callable[[int], Plan],
    measure: Callable[[Plan], float],
    refinement: Sequence[float] = (),
) -> SizeCurve:
    """The curve from the smallest plan to the largest one.

    Args:
        chosen: Group -> format, the plan that will be used.
        losses: Group -> format -> loss, for the formats that fit.
        stored, held: Group -> format -> bytes in the artifact, and in the memory of the running process.
        formats: The target's formats; each that fits every group gives a uniform point.
        smallest_bytes: Bytes of the groups in the smallest artifact there is.
        best: The best plan within so many bytes of weight groups in the artifact.
        measure: KL in nats of the whole model stored by a plan; asked for the chosen and the uniform plans.
        refinement: Measured losses on the way to the chosen plan: see `refinement.Refined`.
    """

    def point(kind: Kind, label: str, plan: Plan, measured_loss: float | None = None) -> CurvePoint:
        stored_bytes = plan_bytes(plan, stored)
        return CurvePoint(
            kind=kind,
            label=label or f"best within {format_byte_size(budget.artifact_bytes(stored_bytes))}",
            artifact_bytes=budget.artifact_bytes(stored_bytes),
            resident_bytes=budget.resident_bytes(plan_bytes(plan, held)),
            predicted_loss=plan_loss(plan, losses),
            measured_loss=measured_loss,
        )

    uniform = {f: dict.fromkeys(losses, f) for f in formats if all(f in found for found in losses.values())}
    points = [point("chosen", "chosen", chosen, measure(chosen))]
    points += [point("uniform", f"uniform {f}", plan, measure(plan)) for f, plan in uniform.items()]
    largest = sum(max(by_format.values()) for by_format in stored.values())
    allocated: dict[int, Plan] = {}
    # Equal ratios: between 2 and 4 bits there is as much to see as between 16 and 32.
    for limit in np.geomspace(smallest_bytes, largest, ALLOCATED_POINTS):
        plan = best(max(round(limit), smallest_bytes))
        allocated.setdefault(plan_bytes(plan, stored), plan)
    points += [point("allocated", "", plan) for plan in allocated.values()]
    return SizeCurve(
        loss_unit=loss_unit,
        artifact_budget_bytes=budget.artifact_limit_bytes,
        resident_budget_bytes=budget.resident_limit_bytes,
        refinement=tuple(refinement),
        points=tuple(sorted(points, key=lambda p: (p.artifact_bytes, p.kind, p.label))),
    )
