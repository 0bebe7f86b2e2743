"""Several runs of one comparison as tables: each ratio in every run, then the last run in full."""

from __future__ import annotations

from edgeicl.report.comparison_facts import comparison_tables
from edgeicl.report.facts import Facts, percent
from edgeicl.specs.comparison import RepeatedComparison

_NAMES = {"first_token": "first token", "prefill": "prefill", "decode": "decode", "peak_rss": "peak memory"}


def repeat_tables(found: RepeatedComparison) -> list[Facts]:
    """All tables of a repeated comparison, in the order of reading."""
    count = len(found.runs)
    headers = (
        *("artifact", "over", "ratio", *(f"run {number}" for number in range(1, count + 1))),
        *("median", "deviation", "repeats"),
    )
    rows = tuple(
        (
            *(entry.artifact, entry.rival, _NAMES[entry.what], *(f"{value:.2f}" for value in entry.medians)),
            *(f"{entry.median:.2f}", percent(entry.deviation), "yes" if entry.repeats else "no"),
        )
        for entry in found.repeats
    )
    note = " ".join(
        [
            "Each run is a whole comparison, its ratio the median over rounds. Deviation: the farthest run",
            "from the median of all; a ratio repeats where that is at most",
            f"{percent(found.allowed_deviation)} and the computer was quiet.",
            *(f"Doubt: {text}." for text in found.doubts),
            *(f"Note: {text}." for text in found.notes),
        ]
    )
    return [Facts(f"Ratios of {count} runs", headers, rows, note), *comparison_tables(found.runs[-1])]
