"""The whole size-loss curve: what every budget would buy, not only the one that was asked for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.recovery import Recovery
from edgeicl.specs.spec import Spec


class CurvePoint(Spec):
    """One way to store the model: what it takes, and what it is predicted (and was measured) to lose."""

    label: str = Field(
        description="How the report names it: `chosen`, `LSAQ`, `uniform int4/block64`, a budget."
    )
    kind: Literal["chosen", "uniform", "rule", "allocated"]
    artifact_bytes: int
    resident_bytes: int
    predicted_loss: float = Field(description="Sum over weight groups, in the curve's unit.")
    measured_loss: float | None = Field(
        None, description="KL in nats of the whole model so stored, at the calibration tokens."
    )


class SizeCurve(Spec):
    """Points by rising size. The allocated ones are the best plan for each size."""

    version: Literal[1] = 1
    loss_unit: str = Field(description="What `predicted_loss` counts.")
    artifact_budget_bytes: int | None = None
    resident_budget_bytes: int | None = None
    refinement: tuple[float, ...] = Field(
        (),
        description="Measured loss of the plan as allocated, and after each round of refinement that found a "
        "better one; empty where none was asked for.",
    )
    recovery: Recovery | None = Field(
        None, description="Of the chosen plan, whose measured loss is that before it; null: not asked for."
    )
    points: tuple[CurvePoint, ...]
