"""What commands print on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeicl.report import facts
from edgeicl.report.comparison_facts import comparison_tables
from edgeicl.report.facts import Facts
from edgeicl.report.headline_facts import headline_tables
from edgeicl.report.repeat_facts import repeat_tables
from edgeicl.report.tables import aligned
from edgeicl.specs.agreement import Agreement
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.comparison import Comparison, RepeatedComparison
from edgeicl.specs.headline import Headline
from edgeicl.specs.manifest import Manifest
from edgeicl.specs.measurement import BenchResult, LabelledAccuracy
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.regression import Compared
from edgeicl.specs.target import Budget, Target
from edgeicl.specs.teacher_speed import TeacherSpeed


def teacher_speed_text(speed: TeacherSpeed) -> str:
    """What a teacher's targets cost."""
    found = speed.compared
    figures = [
        ("teacher", f"{speed.teacher} in {speed.load_in}, {speed.threads} threads"),
        (
            "targets",
            f"{found.queries} queries of {found.query_tokens:.0f} tokens in {found.targets_s:.1f} s, of which "
            f"the context of {found.context_tokens} tokens about {found.context_s:.1f} s",
        ),
        ("plain way", f"{found.plain_s:.2f} s a query ({found.plain_queries} measured, by turns)"),
        ("ratio", f"{found.ratio:.1f} times as fast; {found.cpu_ratio:.1f} in time of the processor"),
        (
            "largest difference",
            f"{found.largest_difference:.2g} between log-probabilities, which spread by {found.spread:.2g}",
        ),
    ]
    figures += [
        ("peak memory", f"{format_byte_size(entry.peak_rss_bytes)} with {entry.queries} queries")
        for entry in speed.memory
    ]
    figures.append(("estimated before", format_byte_size(speed.estimated_bytes)))
    return "\n".join(f"{name + ':':<24}{value}" for name, value in figures)


def bench_text(result: BenchResult) -> str:
    """The benchmark as a table with its conditions."""
    return _text(facts.bench_facts(result))


def agreement_text(found: Agreement) -> str:
    """Logits on a device beside those here."""
    rows = [
        ("device", f"{found.device.address}: {found.device.machine}, {' '.join(found.device.features)}"),
        ("this computer", f"{found.here.machine}, {' '.join(found.here.features)}"),
        ("onnxruntime", f"{found.device.runtime_version} there, {found.here.runtime_version} here"),
        ("formats", ", ".join(found.formats)),
        ("read and decoded", f"{found.prompt_tokens} and {found.decode_tokens} tokens"),
        ("relative error of logits", f"{found.relative_error:.2g} (at most {found.tolerance:g})"),
        ("largest difference", f"{found.largest_difference:.3g}"),
        ("same largest logit", facts.percent(found.same_choice)),
    ]
    verdict = "agrees" if found.agrees else "DIFFERS"
    return f"{aligned(('', verdict), rows)}\n{found.why}. Times mean nothing there and are not told."


def compared_text(found: Sequence[Compared]) -> str:
    """A result beside its baseline."""
    rows = [
        (
            entry.metric,
            f"{entry.before:,.6g}",
            f"{entry.now:,.6g}",
            f"{entry.change_percent:+.1f} %",
            "; ".join(entry.broken),
        )
        for entry in found
    ]
    return aligned(("metric", "baseline", "now", "change", "fails"), rows)


def headline_text(found: Headline) -> str:
    """The artifact beside the teacher."""
    return "\n\n".join(_text(table) for table in headline_tables(found))


def repeated_text(found: RepeatedComparison) -> str:
    """Whether ratios repeat, and the last of the runs."""
    return "\n\n".join(_text(table) for table in repeat_tables(found))


def comparison_text(comparison: Comparison) -> str:
    """Artifacts beside rivals, and which rivals are missing."""
    return "\n\n".join(_text(table) for table in comparison_tables(comparison))


def artifact_text(manifest: Manifest) -> str:
    """Plan, ledger and provenance of an artifact."""
    plan = Facts(
        "Plan",
        ("group", "format", f"importance ({manifest.plan.importance})"),
        tuple(
            (entry.group, str(entry.format), "" if entry.importance is None else f"{entry.importance:.4g}")
            for entry in manifest.plan.groups
        ),
        note=f"Weights: {manifest.rounding}. Beside weights: {manifest.plan.numbers}.",
    )
    tables = [
        plan,
        facts.size_facts(manifest),
        facts.artifact_facts(manifest),
        facts.parity_facts(manifest),
        facts.deviation_facts(manifest.deviations),
        facts.provenance_facts(manifest),
    ]
    head = f"{manifest.name} for {manifest.target}"
    before = facts.prefix_text(manifest)
    if before is not None:
        head += f"\nbefore every query: {before}"
    return "\n\n".join([head, *(_text(table) for table in tables if table is not None)])


def prefix_text(manifest: Manifest, folder: Path) -> str:
    """What stands before a query now, and what the artifact takes with it."""
    rows = (
        ("before every query", facts.prefix_text(manifest) or "nothing"),
        ("artifact", format_byte_size(facts.artifact_bytes(manifest))),
        ("folder", str(folder)),
    )
    return "\n".join(f"{name + ':':<36}{value}" for name, value in rows)


def recipe_text(recipe: Recipe, resolved: str, path: Path) -> str:
    """A recipe with its defaults, and what it would be compiled for."""
    targets = ", ".join(recipe.targets) or "none; name one with --target"
    return f"# {path}\n# targets: {targets}\n{resolved.rstrip()}"


def targets_text(targets: Mapping[str, Target]) -> str:
    """One line a target, within 100 columns."""
    rows = [
        (
            name,
            target.provider,
            str(target.threads),
            str(target.context_tokens),
            _budget_text(target.budget),
            " ".join(dict.fromkeys(str(entry).partition("/")[0] for entry in target.formats)),
        )
        for name, target in targets.items()
    ]
    table = aligned(("target", "runs on", "threads", "context", "budget", "formats"), rows)
    return f"{table}\nDescriptions, block sizes and sources: `edgeicl targets --json`."


def labelled_text(measured: LabelledAccuracy) -> str:
    """Accuracy of an artifact on one data set."""
    rows = [("all", facts.percent(measured.accuracy)), ("balanced", facts.percent(measured.balanced_accuracy))]
    if measured.macro_f1 is not None:
        rows.append(("macro-F1", facts.percent(measured.macro_f1)))
    rows += [(label, facts.percent(share)) for label, share in measured.accuracy_by_label.items()]
    if measured.same_answers is not None:
        rows.append(("answered as here", facts.percent(measured.same_answers)))
    where = "" if measured.device == "local" else f" on {measured.device}"
    head = f"{measured.data}, {measured.examples} examples{where}"
    parts = [f"{head}\n{aligned(('label', 'accuracy'), rows)}"]
    return "\n\n".join([*parts, *map(labelled_text, measured.by_group.values())])


def _budget_text(budget: Budget) -> str:
    named = (("artifact", budget.artifact_bytes), ("resident", budget.resident_bytes))
    told = [f"{name} {format_byte_size(count)}" for name, count in named if count is not None]
    times = (("a token", budget.decode_ms), ("a prompt", budget.first_token_ms))
    return ", ".join([*told, *(f"{what} {limit:g} ms" for what, limit in times if limit is not None)])


def _text(table: Facts) -> str:
    return "\n".join([table.heading, aligned(table.headers, table.rows), *filter(None, [table.note])])
