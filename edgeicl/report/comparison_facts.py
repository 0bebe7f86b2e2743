"""A comparison as tables: everyone's figures, then each artifact over each rival, then who is missing."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from edgeicl.report.facts import Facts, conditions_text
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.comparison import Comparison, Contestant, Pairing, Ratio


def comparison_tables(comparison: Comparison) -> list[Facts]:
    """All tables of a comparison, in the order of reading."""
    ratios = [_ratio_facts(entry.name, comparison.pairings) for entry in comparison.artifacts]
    missing = tuple((entry.name, entry.reason) for entry in comparison.not_measured)
    absent = [Facts("Not measured", ("rival", "reason"), missing)] if missing else []
    return [_figure_facts(comparison), *ratios, *absent]


def _figure_facts(comparison: Comparison) -> Facts:
    rows = []
    for artifact in comparison.artifacts:
        shares = artifact.ceiling_shares
        of_ceiling = f"{100 * median(shares):.0f} %" if shares else ""
        rows.append((*_figures(artifact), of_ceiling, ""))
    rows += [
        (*_figures(rival), "", f"{rival.logit_error:.2g} (at most {rival.logit_tolerance:g})")
        for rival in comparison.rivals
    ]
    headers = (
        *("", "first token, ms", "prefill, tokens/s", "decode, tokens/s", "graph and weights"),
        *("peak memory", "of which libraries", "of the ceiling", "logit error"),
    )
    described = [f"{entry.name}: {entry.description}." for entry in (*comparison.artifacts, *comparison.rivals)]
    count = len(comparison.artifacts[0].rounds)
    bandwidth = comparison.bandwidth_bytes_per_second
    memory_read = f"; memory read at {bandwidth / 1e9:.0f} GB/s" if bandwidth else ""
    note = " ".join(
        [
            *described,
            f"Rivals have {comparison.weights}; their logit error is to transformers in fp32.",
            f"{comparison.fidelity}, medians of {count} round{'s' * (count != 1)} in turn, on",
            f"{conditions_text(comparison.conditions)}{memory_read}.",
            *(f"Doubt: {text}." for text in comparison.doubts),
            *(f"Note: {text}." for text in comparison.notes),
        ]
    )
    return Facts("Comparison", headers, tuple(rows), note)


def _figures(entry: Contestant) -> tuple[str, ...]:
    rounds = entry.rounds
    speeds = [r.decode_tokens_per_second for r in rounds if r.decode_tokens_per_second is not None]
    return (
        entry.name,
        f"{median(r.first_token_ms for r in rounds):,.1f}",
        f"{median(r.prefill_tokens_per_second for r in rounds):,.0f}",
        f"{median(speeds):,.1f}" if speeds else "",
        format_byte_size(entry.file_bytes),
        format_byte_size(round(median(r.peak_rss_bytes for r in rounds))),
        format_byte_size(round(median(r.baseline_rss_bytes for r in rounds))),
    )


def _ratio_facts(artifact: str, pairings: tuple[Pairing, ...]) -> Facts:
    own = [found for found in pairings if found.artifact == artifact]
    rows = tuple(
        (
            found.rival,
            ratio_text(found.first_token),
            ratio_text(found.prefill),
            "" if found.decode is None else ratio_text(found.decode),
            f"{found.file_bytes:.2f}",
            ratio_text(found.peak_rss),
        )
        for found in own
    )
    headers = (f"{artifact} over", "first token", "prefill", "decode", "graph and weights", "peak memory")
    note = f"{interval_text([found.first_token for found in own])}; speeds above 1 and times, bytes and memory "
    note += "below 1 are better."
    return Facts(f"Ratios of {artifact}", headers, rows, note)


def interval_text(ratios: Sequence[Ratio]) -> str:
    """What is in brackets: of few rounds their range, which holds the median of all less often than 95 %."""
    least = min((ratio.confidence for ratio in ratios), default=0.0)
    rounds = min((len(ratio.values) for ratio in ratios), default=1)
    if rounds < 2:
        return "One round, so no intervals"
    if least < 0.95:
        return (
            f"Medians over {rounds} rounds, with their range in brackets, which holds the true median with "
            f"{100 * least:.3g} %"
        )
    return "Medians over rounds, with 95 % bootstrap intervals over rounds in brackets"


def ratio_text(ratio: Ratio) -> str:
    """`4.02 [3.80, 4.31]`; the interval only where there is more than one round."""
    if len(ratio.values) < 2:
        return f"{ratio.median:.2f}"
    return f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
