"""The first table of a report."""

from __future__ import annotations

from edgeicl.report.accuracy_facts import gain_text, one_answer_text
from edgeicl.report.facts import (
    DATA_NAMES,
    Facts,
    artifact_bytes,
    percent,
    prefix_text,
    unquantized_text,
)
from edgeicl.specs.curve import SizeCurve
from edgeicl.specs.manifest import Manifest


def summary_facts(manifest: Manifest, curve: SizeCurve) -> Facts:
    """The few figures that somebody wants first."""
    rows: list[tuple[str, str]] = []
    if manifest.evaluation is not None and manifest.evaluation.gain_points is not None:
        rows.append(("teacher's gain from demonstrations", gain_text(manifest.evaluation)))
    if manifest.evaluation is not None and (answers := one_answer_text(manifest.evaluation)):
        rows.append(("it answers", answers))
    rows += [
        (f"accuracy of the artifact, {DATA_NAMES[entry.data]}", percent(entry.artifact))
        for entry in manifest.accuracy
    ]
    before = prefix_text(manifest)
    if before is not None:
        rows.append(("before every query", before))
    rows.append(("artifact", _of_budget(artifact_bytes(manifest), curve.artifact_budget_bytes)))
    resident = _of_budget(manifest.plan.predicted_resident_bytes, curve.resident_budget_bytes)
    rows.append(("resident memory, predicted", resident))
    if manifest.plan.prompt_format is not None:
        rows.append(("second copy of the layers, to read prompts with", str(manifest.plan.prompt_format)))
    if manifest.plan.prompt_attention == "whole":
        rows.append(("attention to prompts", "all scores of a layer at once, not in tiles"))
    if manifest.plan.predicted_first_token_ms is not None:
        first = f"{manifest.plan.predicted_first_token_ms:.3g} ms"
        rows.append(("a prompt of the target's length, predicted", first))
    if manifest.plan.predicted_decode_ms is not None:
        rows.append(("a decoded token on the target, predicted", f"{manifest.plan.predicted_decode_ms:.3g} ms"))
    unquantized = unquantized_text(manifest.plan)
    if unquantized is not None:
        rows.append(("weights", unquantized))
    else:
        rows.append(("weights", manifest.rounding))
    rows.append(("numbers beside weights", manifest.plan.numbers))
    if manifest.bench is not None:
        bench = manifest.bench
        if bench.decode_tokens_per_second is not None:
            rows.append((f"decode, {bench.fidelity}", f"{bench.decode_tokens_per_second:,.0f} tokens/s"))
        rows.append((f"time to first token, {bench.fidelity}", f"{bench.first_token_ms:.2f} ms"))
        rows += [("note on these speeds", text) for text in bench.notes]
    rows.append(("deviations from what was asked", str(len(manifest.deviations))))
    return Facts("In short", ("figure", "value"), tuple(rows))


def _of_budget(count: int, budget: int | None) -> str:
    if budget is None:
        return f"{count:,} bytes"
    return f"{count:,} of {budget:,} bytes ({percent(count / budget)})"
