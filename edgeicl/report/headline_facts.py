"""The headline as tables: everyone's figures per query, then the artifact over each way to run the teacher."""

from __future__ import annotations

from statistics import median

from edgeicl.report.accuracy_facts import p_text
from edgeicl.report.comparison_facts import interval_text
from edgeicl.report.facts import DATA_NAMES, Facts, percent
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.comparison import Ratio
from edgeicl.specs.headline import AgainstTeacher, Answerer, Headline


def headline_tables(found: Headline) -> list[Facts]:
    """All tables of a headline, in the order of reading."""
    missing = tuple((entry.name, entry.reason) for entry in found.not_measured)
    absent = [Facts("Not measured", ("side", "reason"), missing)] if missing else []
    return [_figure_facts(found), _ratio_facts(found), *absent]


def _figure_facts(found: Headline) -> Facts:
    sides = (found.artifact, *found.teachers)
    data = [row.data for row in found.artifact.accuracy]
    headers = (
        *("", "query, ms", "p90, ms", "weights", "peak memory", "of which libraries"),
        *("bytes a query", "operations a query", *(DATA_NAMES[name] for name in data)),
    )
    count = len(found.artifact.rounds)
    examples = ", ".join(f"{row.examples} {DATA_NAMES[row.data]}" for row in found.artifact.accuracy)
    once = [
        f"{side.name}: {median(r.demonstrations_ms for r in side.rounds):,.0f} ms"
        for side in found.teachers
        if side.cached
    ]
    libraries = {f"{name} {version}" for side in sides for name, version in side.versions.items()}
    note = " ".join(
        [
            *(f"{side.name}: {side.description}." for side in sides),
            f"The teacher, {found.teacher}, is shown {found.demonstrations} demonstrations "
            f"({found.demonstration_tokens} tokens, seed {found.demonstration_seed}); a median query has "
            f"{found.artifact.query_tokens} tokens for the artifact, {found.teachers[0].query_tokens} for it.",
            f"{found.fidelity}: medians of {count} round{'s' * (count != 1)} in turn, each of {examples}",
            f"queries, one at a time, on {found.machine}, {found.processor}, {found.threads} threads on",
            f"{found.logical_cores} cores ({', '.join(sorted(libraries))}).",
            *([f"Keys and values of the demonstrations take once, {', '.join(once)}."] if once else []),
            "Bytes (weights, and keys and values, once a pass) and operations are counted: a proxy of energy.",
            *(f"Doubt: {text}." for text in found.doubts),
            *(f"Note: {text}." for text in found.notes),
        ]
    )
    return Facts("Headline", headers, tuple(_figures(side) for side in sides), note)


def _figures(side: Answerer) -> tuple[str, ...]:
    rounds = side.rounds
    tails = [sorted(r.query_samples_ms)[int(0.9 * len(r.query_samples_ms))] for r in rounds]
    return (
        side.name,
        f"{median(r.query_ms for r in rounds):,.2f}",
        f"{median(tails):,.2f}",
        format_byte_size(side.file_bytes),
        format_byte_size(round(median(r.peak_rss_bytes for r in rounds))),
        format_byte_size(round(median(r.baseline_rss_bytes for r in rounds))),
        format_byte_size(side.bytes_per_query),
        "" if side.flops_per_query is None else f"{side.flops_per_query / 1e6:,.1f} M",
        *(percent(row.accuracy) for row in side.accuracy),
    )


def _ratio_facts(found: Headline) -> Facts:
    data = [row.data for row in found.artifact.accuracy]
    headers = (
        *("artifact over", "query", "peak memory", "weights", "bytes", "operations"),
        *(f"{DATA_NAMES[name]}, points" for name in data),
    )
    note = (
        f"{interval_text([entry.query for entry in found.pairings])}; below 1 is less. Points: "
        "accuracy of the artifact minus the teacher's on the same queries, with 95 % intervals and p of no "
        "difference (sign-flip test over queries)."
    )
    return Facts("Artifact over teacher", headers, tuple(_ratios(entry) for entry in found.pairings), note)


def _ratios(entry: AgainstTeacher) -> tuple[str, ...]:
    return (
        entry.teacher,
        _small_ratio(entry.query),
        _small_ratio(entry.peak_rss),
        _small(entry.file_bytes),
        _small(entry.bytes_per_query),
        "" if entry.flops_per_query is None else _small(entry.flops_per_query),
        *(f"{t.points:+.1f} [{t.low:+.1f}, {t.high:+.1f}], p {p_text(t.p_value)}" for t in entry.tests),
    )


def _small_ratio(ratio: Ratio) -> str:
    """`0.0123 [0.0121, 0.0125]`: three digits that count, whatever the size."""
    if len(ratio.values) < 2:
        return _small(ratio.median)
    return f"{_small(ratio.median)} [{_small(ratio.low)}, {_small(ratio.high)}]"


def _small(value: float) -> str:
    return f"{value:.3g}"
