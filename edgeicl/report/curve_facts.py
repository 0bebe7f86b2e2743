"""The size-loss curve as a table: the chosen plan beside those that others would make."""

from __future__ import annotations

from collections.abc import Sequence

from edgeicl.report.facts import Facts, artifact_bytes
from edgeicl.specs.curve import SizeCurve
from edgeicl.specs.manifest import Manifest
from edgeicl.specs.recovery import Recovery


def curve_facts(curve: SizeCurve, manifest: Manifest) -> Facts:
    """The chosen plan beside one format for all; the best plans for other sizes are folded."""
    shown, folded = (
        tuple(
            (
                point.label,
                f"{point.artifact_bytes:,}",
                f"{point.resident_bytes:,}",
                f"{point.predicted_loss:.4g}",
                "" if point.measured_loss is None else f"{point.measured_loss:.4g}",
            )
            for point in curve.points
            if (point.kind == "allocated") is allocated
        )
        for allocated in (False, True)
    )
    headers = ("plan", "artifact bytes", "resident bytes", "predicted loss", "measured KL, nats")
    note = (
        f"Predicted loss: {curve.loss_unit}. Bytes are predicted, an upper bound: the artifact takes "
        f"{artifact_bytes(manifest):,}.{_rules_text(curve)}{_refinement_text(curve.refinement)}"
        f"{_recovery_text(curve.recovery)}"
    )
    return Facts("Size and loss", headers, shown, note, folded)


def _rules_text(curve: SizeCurve) -> str:
    """Which plans are by another rule, and under what conditions."""
    rules = [point.label for point in curve.points if point.kind == "rule"]
    return f" By another rule within the same limits, rounded alike: {', '.join(rules)}." if rules else ""


def _refinement_text(losses: Sequence[float]) -> str:
    """What measuring whole plans around the allocated one has changed, where that was asked for."""
    if not losses:
        return ""
    if len(losses) == 1:
        return " Refinement found no plan of less measured KL than the allocated one."
    return f" Refinement took the measured KL from {losses[0]:.4g} to {losses[-1]:.4g} nats."


def _recovery_text(recovery: Recovery | None) -> str:
    """What training the rounded student has changed, where that was asked for."""
    if recovery is None:
        return ""
    start, best = recovery.at(0), recovery.at(recovery.best_step)
    steps = recovery.judged[-1].step
    if recovery.best_step == 0:
        return f" Recovery: {steps} steps of training made nothing better, and nothing of them was kept."
    taught = ""
    if best.kl_to_teacher is not None:
        taught = f", to the teacher from {start.kl_to_teacher:.4g} to {best.kl_to_teacher:.4g}"
    return (
        f" Recovery, not in these figures: on {recovery.held_out} held-out sequences, {best.step} of {steps} "
        f"steps took the KL to the unquantized student from {start.kl_to_student:.4g} to "
        f"{best.kl_to_student:.4g} nats{taught}."
    )
