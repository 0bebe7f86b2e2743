"""Logged in-context predictions of the real OPT-125M and OPT-1.3B on MNLI, through edgeicl's own measures.

`python -m tests.logged_opt_predictions FOLDER`, the folder of real data: prints the tables of
docs/results/logged-opt-predictions.md.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeicl.distill.evaluate import accuracy_row, paired_test
from edgeicl.distill.gain import Gain, certain_gain, measure_gain
from edgeicl.errors import GainError
from edgeicl.report.accuracy_facts import p_text
from edgeicl.report.tables import markdown
from edgeicl.specs.measurement import Estimate
from edgeicl.specs.source import Source
from edgeicl.tasks.readers import read_examples

LABELS = ("entailment", "contradiction")
MODELS, SHOTS = ("opt-125m", "opt-1.3b"), (2, 32)
GAIN_EXAMPLES = 512
"""As many as context distillation measures the gain on."""


@dataclass(frozen=True)
class Logged:
    """Gold label indices [N], and those predicted by each context seed of a model with so many shots."""

    gold: NDArray[np.int64]
    predicted: dict[tuple[str, int], list[NDArray[np.int64]]]
    reported: dict[tuple[str, int], list[float]]


def read_logged(folder: Path) -> Logged:
    """The log, aligned with matched MNLI by the line index beside it."""
    source = Source(source="file:nli_mnli/mnli_dev_matched.jsonl", label="label")
    three = (*LABELS, "neutral")
    examples = read_examples(source, labels=three, base_folder=folder)
    log = folder / "ref_opt_icl"
    lines = json.loads((log / "mnli_dev_matched_line_index.json").read_text())
    gold = np.array([LABELS.index(examples[line].label) for line in lines])
    predicted: dict[tuple[str, int], list[NDArray[np.int64]]] = {}
    reported: dict[tuple[str, int], list[float]] = {}
    with (log / "opt_icl_mnli2way_predictions.jsonl").open() as runs:
        for run in map(json.loads, runs):
            key = run["model"], run["shots"]
            predicted.setdefault(key, []).append(np.array(["YN".index(answer) for answer in run["preds"]]))
            reported.setdefault(key, []).append(run["reported_score_accuracy"])
    return Logged(gold, predicted, reported)


def gain(logged: Logged, model: str, without: NDArray[np.int64], *, examples: int | None = None) -> Gain:
    """What 32 shots gain over the answers `without`, on the first `examples` drawn once."""
    chosen = np.random.default_rng(0).permutation(len(logged.gold))[:examples]

    def scores(predicted: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.eye(len(LABELS))[predicted[chosen]]

    shown = [scores(predicted) for predicted in logged.predicted[model, 32]]
    return measure_gain(shown, scores(without), logged.gold[chosen], LABELS)


def refused(found: Gain) -> bool:
    """Whether the gate of context distillation refuses such a teacher."""
    try:
        certain_gain(found, required=True)
    except GainError:
        return True
    return False


def tables(logged: Logged) -> str:
    """Markdown."""
    measured = []
    for model in MODELS:
        for shots in SHOTS:
            row = accuracy_row(model, "in_domain", logged.predicted[model, shots], logged.gold, LABELS)
            assert row.macro_f1 is not None
            cells = (row.accuracy, row.balanced_accuracy, row.macro_f1, *row.accuracy_by_label.values())
            measured.append((model, str(shots), *map(_interval, cells)))
    headers = ("model", "shots", "accuracy", "balanced", "macro-F1", *LABELS)
    runs = [
        (
            f"{model}, {shots} shots",
            *(f"{np.mean(one == logged.gold):.3f}" for one in logged.predicted[model, shots]),
        )
        for model in MODELS
        for shots in SHOTS
    ]
    paired = []
    for left, right in ((("opt-1.3b", 32), ("opt-1.3b", 2)), (("opt-1.3b", 32), ("opt-125m", 32))):
        names = [f"{model}, {shots} shots" for model, shots in (left, right)]
        test = paired_test(
            names[0],
            logged.predicted[left],
            names[1],
            logged.predicted[right],
            data="in_domain",
            gold=logged.gold,
        )
        points = f"{test.points:+.1f} [{test.low:+.1f}, {test.high:+.1f}]"
        paired.append((f"{names[0]} - {names[1]}", points, p_text(test.p_value)))
    gains = []
    constant = np.zeros_like(logged.gold)
    for model in MODELS:
        for name, without in (
            ("always entailment", constant),
            ("2 shots, seed 0", logged.predicted[model, 2][0]),
        ):
            for examples in (GAIN_EXAMPLES, None):
                found = gain(logged, model, without, examples=examples)
                points = found.points
                gains.append(
                    (
                        model,
                        name,
                        f"{found.examples:,}",
                        f"{points.mean:+.1f} [{points.low:+.1f}, {points.high:+.1f}]",
                        f"{found.chance_points:.1f}",
                        "refused" if refused(found) else "accepted",
                    )
                )
    return "\n\n".join(
        [
            markdown(headers, measured),
            markdown(("accuracy of each run", *(f"seed {n}" for n in range(5))), runs),
            markdown(("difference", "points of accuracy", "p"), paired),
            markdown(
                ("teacher", "without demonstrations", "examples", "gain, points", "by chance", "gate"), gains
            ),
        ]
    )


def _interval(found: Estimate) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    sys.stdout.write(tables(read_logged(Path(sys.argv[1]))) + "\n")
