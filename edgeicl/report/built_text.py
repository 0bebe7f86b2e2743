"""What a build gave, as a short table in the terminal."""

from __future__ import annotations

from pathlib import Path

from edgeicl.report import facts
from edgeicl.report.accuracy_facts import gain_text, one_answer_text, p_text
from edgeicl.report.tables import aligned
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.manifest import Manifest
from edgeicl.specs.target import Budget, Target


def built_text(manifest: Manifest, *, target: Target, folder: Path) -> str:
    """The short table after a build, and where the report is."""
    parts = [f"{manifest.name} for {manifest.target}"]
    evaluation = manifest.evaluation
    if evaluation is not None and evaluation.rows:
        tests = {(test.baseline, test.data): test for test in evaluation.paired_tests}
        rows = [
            (
                row.method,
                facts.DATA_NAMES[row.data],
                facts.with_interval(row.accuracy),
                "" if row.macro_f1 is None else facts.percent(row.macro_f1.mean),
                p_text(tests[row.method, row.data].p_value) if (row.method, row.data) in tests else "",
            )
            for row in evaluation.rows
        ]
        parts.append(aligned(("method", "data", "accuracy", "macro-F1", "p"), rows))
        if tests:
            tested = evaluation.paired_tests[0].method
            parts.append(f"p: paired test of {tested} against each; differences are in the report.")
    figures = [
        (
            f"artifact, {facts.DATA_NAMES[entry.data]}",
            f"{facts.percent(entry.artifact)} (student {facts.percent(entry.student)})",
        )
        for entry in manifest.accuracy
    ]
    if evaluation is not None and evaluation.gain_points is not None:
        figures.append(("teacher's gain from demonstrations", gain_text(evaluation)))
    if evaluation is not None and (answers := one_answer_text(evaluation)):
        figures.append(("it answers", answers))
    figures += [("size", _size_text(manifest, target.budget))]
    if times := _times_text(manifest, target.budget):
        figures.append(("on the target, predicted", times))
    before = facts.prefix_text(manifest)
    if before is not None:
        figures.append(("before every query", before))
    unquantized = facts.unquantized_text(manifest.plan)
    if unquantized is not None:
        figures.append(("weights", unquantized))
    if manifest.bench is not None:
        bench = manifest.bench
        first = f"first token after {bench.first_token_ms:.1f} ms"
        if bench.decode_tokens_per_second is None:
            figures.append((f"prompt, {bench.fidelity}", first))
        else:
            speed = f"{bench.decode_tokens_per_second:,.0f} tokens/s, {first}"
            figures.append((f"decode, {bench.fidelity}", speed))
        figures += [("  note", text) for text in bench.notes]
    if manifest.deviations:
        figures.append(("deviations", f"{len(manifest.deviations)}; see the report"))
    figures += [("artifact", str(folder)), ("report", str(folder / "report.html"))]
    parts.append("\n".join(f"{name + ':':<36}{value}" for name, value in figures))
    return "\n\n".join(parts)


def _size_text(manifest: Manifest, budget: Budget) -> str:
    parts = [f"artifact {format_byte_size(facts.artifact_bytes(manifest))}{_of(budget.artifact_bytes)}"]
    resident = format_byte_size(manifest.plan.predicted_resident_bytes)
    parts.append(f"resident {resident}{_of(budget.resident_bytes)}, predicted")
    return ", ".join(parts)


def _times_text(manifest: Manifest, budget: Budget) -> str:
    """Beside the limits, where there are some; empty without a calibration."""
    predicted = (
        ("a token", manifest.plan.predicted_decode_ms, budget.decode_ms),
        ("a prompt", manifest.plan.predicted_first_token_ms, budget.first_token_ms),
    )
    told = [
        f"{what} {ms:.3g}{'' if limit is None else f' of {limit:g}'} ms"
        for what, ms, limit in predicted
        if ms is not None
    ]
    return ", ".join(told)


def _of(budget_bytes: int | None) -> str:
    return "" if budget_bytes is None else f" of {format_byte_size(budget_bytes)}"
