"""More about accuracy than one table holds: the teacher's gain, by group, by rank, and between methods."""

from __future__ import annotations

from edgeicl.report.facts import DATA_NAMES, LABELS_SHOWN, Facts, with_interval
from edgeicl.specs.manifest import Manifest
from edgeicl.specs.measurement import Evaluation

_ALL = 0.99
"""Of so large a share of a label's examples an answer is said to be given to everything."""


def gain_text(evaluation: Evaluation) -> str:
    """What the teacher gains, and of what: not the accuracy of the tables, which is on evaluation data."""
    gain = evaluation.gain_points
    if gain is None:
        return "not measured"
    interval = f" [{gain.low:+.1f}, {gain.high:+.1f}]" if len(gain.values) > 1 else ""
    doubt = (
        "" if evaluation.gain_certain else "; not certain, and used all the same (distill.require_gain: false)"
    )
    return f"{gain.mean:+.1f} points{interval} of balanced accuracy on transfer examples{doubt}"


def one_answer_text(evaluation: Evaluation) -> str | None:
    """Where what is deployed gives one label to all examples, which an accuracy near chance may hide."""
    deployed = evaluation.paired_tests[0].method if evaluation.paired_tests else None
    found = []
    for row in evaluation.rows:
        shares = {label: share.mean for label, share in row.accuracy_by_label.items()}
        favourite = max(shares, key=shares.__getitem__)
        others = [share for label, share in shares.items() if label != favourite]
        if row.method == deployed and others and shares[favourite] > _ALL and max(others) < 1 - _ALL:
            found.append(f"'{favourite}' to everything {DATA_NAMES[row.data]}")
    return "; ".join(found) or None


def group_facts(manifest: Manifest) -> Facts | None:
    """Accuracy by the values of a column, such as the heuristics of HANS, and by label within each."""
    rows = manifest.evaluation.rows if manifest.evaluation else ()
    found = [(row, group) for row in rows for group in row.groups]
    if not found:
        return None
    labels = sorted({label for _, group in found for label in group.accuracy_by_label})
    if len(labels) > LABELS_SHOWN:
        labels = []
    table = tuple(
        (
            row.method,
            DATA_NAMES[row.data],
            group.group,
            with_interval(group.accuracy),
            with_interval(group.balanced_accuracy),
            with_interval(group.macro_f1),
            *(
                with_interval(group.accuracy_by_label[label]) if label in group.accuracy_by_label else ""
                for label in labels
            ),
            str(group.examples),
        )
        for row, group in found
    )
    headers = ("method", "data", "group", "accuracy", "balanced", "macro-F1", *labels, "examples")
    return Facts("Accuracy by group", headers, table)


def ranking_facts(manifest: Manifest) -> Facts | None:
    """Where the right word was found among many candidates (LAMA)."""
    rows = manifest.evaluation.rows if manifest.evaluation else ()
    table = tuple(
        (
            row.method,
            DATA_NAMES[row.data],
            with_interval(row.ranking.precision_at_1),
            with_interval(row.ranking.precision_at_10),
            with_interval(row.ranking.mean_reciprocal_rank),
        )
        for row in rows
        if row.ranking is not None
    )
    headers = ("method", "data", "P@1", "P@10", "mean reciprocal rank")
    return Facts("Ranks among the candidate words", headers, table) if table else None


def paired_facts(manifest: Manifest) -> Facts | None:
    """The method against each other one on the same examples."""
    if manifest.evaluation is None or not manifest.evaluation.paired_tests:
        return None
    rows = tuple(
        (
            f"{test.method} - {test.baseline}",
            DATA_NAMES[test.data],
            f"{test.points:+.1f} [{test.low:+.1f}, {test.high:+.1f}]",
            p_text(test.p_value),
        )
        for test in manifest.evaluation.paired_tests
    )
    note = (
        "Paired over examples, each with the mean over its runs: intervals of 95 % and exact sign-flip tests, "
        "two-sided, not corrected for their number. They hold for these demonstration sets."
    )
    return Facts("Differences between methods", ("difference", "data", "points of accuracy", "p"), rows, note)


def p_text(p_value: float) -> str:
    """`0.032`, or `< 0.0001`."""
    return f"{p_value:.2g}" if p_value >= 1e-4 else "< 0.0001"
