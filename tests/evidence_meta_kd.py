"""Meta-KD against single-domain distillation on the built-in family, by the amount of in-domain data.

`python -m tests.evidence_meta_kd` prints the table of docs/results/meta-kd.md; options tell what to measure.
Every finished run stands in docs/results/meta-kd.json and is not done again; `--recorded` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeicl.distill import evaluate as methods
from edgeicl.distill.stage import distill
from edgeicl.numerics.statistics import estimate
from edgeicl.report.facts import with_interval
from edgeicl.specs.catalog import load_recipe
from edgeicl.store import Store, cache_root

RESULTS = Path(__file__).parents[1] / "docs/results/meta-kd.json"
TASKS = {"action": "voice", "entailment": "negation"}
"""Task -> the domain that is made scarce: verbs that all domains share, and a rule of one domain's own."""
EXAMPLES = (8, 16, 32)
SEEDS = (0, 1, 2)
STEPS, BATCH = 100, 8
"""Steps of each stage of a student, whatever the number of its examples; fine-tuning has as many as both."""

ABLATED = ("action", 8)
NO_BASELINES = "baselines=[]"
VARIANTS = {
    "Meta-KD": (),
    "domain unseen by the teacher": ("domain_in_teacher=false", "baselines=[mixed_domain]"),
    "without weights": ("weights.prototypes=none", NO_BASELINES),
    "without confusion": ("confusion.weight=0", "matching.domain_feature=0", NO_BASELINES),
    "without matching": ("matching.epochs=0", "baselines=[single_domain]"),
    "gradient reversal": ("confusion.labels=reversed", NO_BASELINES),
    "as the public code": (
        "weights.prototypes=domain",
        "confusion.labels=shuffled",
        "matching.domain_target=random_projection",
        NO_BASELINES,
    ),
}


Run = dict[str, Any]
"""Variant, task, examples, seed, and the accuracy of every method."""

COLUMNS = {
    "fine-tuned student": methods.FINE_TUNING,
    "single-domain": methods.SINGLE_DOMAIN_DISTILLATION,
    "mixed-domain": methods.MIXED_DOMAIN_DISTILLATION,
    "Meta-KD": methods.META_KD,
    "single-domain teacher": methods.SINGLE_DOMAIN_TEACHER,
    "meta-teacher": methods.META_TEACHER,
}


def cases(
    tasks: Sequence[str], examples: Sequence[int], seeds: Sequence[int], *, variants: bool
) -> Iterator[tuple[str, str, int, int]]:
    """Variant, task, examples, seed: the comparison first, for all seeds, then what is left out."""
    for task in tasks:
        for amount in examples:
            for seed in seeds:
                yield "Meta-KD", task, amount, seed
    for name in VARIANTS if variants else ():
        for seed in seeds:
            if name != "Meta-KD":
                yield name, *ABLATED, seed


def accuracy(variant: str, task: str, amount: int, seed: int) -> dict[str, float]:
    """Accuracy of every method on 200 test texts of the domain."""
    domain, epochs = TASKS[task], STEPS * BATCH // amount
    overrides = [
        f"seed={seed}",
        f"task.train={{source: 'builtin:nli/{task}', split: train, limit: 350, seed: {seed}}}",
        f"task.in_domain.source=builtin:nli/{task}",
        f"task.in_domain.where.phenomenon={domain}",
        "task.in_domain.limit=200",
        "distill.demonstrations={count: 4, seeds: [0]}",
        f"distill.training={{learning_rate: 1.0e-3, epochs: {epochs}, batch_size: {BATCH}}}",
        f"distill.baseline_epochs={2 * epochs}",
        f"distill.meta_kd.domain={domain}",
        f"distill.meta_kd.domain_examples={amount}",
        "distill.meta_kd.teacher_steps=120",
        f"distill.meta_kd.matching.epochs={epochs}",
        *(f"distill.meta_kd.{setting}" for setting in VARIANTS[variant]),
    ]
    result = distill(load_recipe("meta-kd", overrides), store=Store(cache_root()), base_folder=Path())
    return {row.method: row.accuracy.mean for row in result.evaluation.rows}


def table(found: Sequence[Run]) -> str:
    """Means over seeds with 95 % intervals; a method's difference is taken seed by seed."""
    lines = [
        f"| variant | task, domain | examples | seeds | {' | '.join(COLUMNS)} "
        "| Meta-KD minus single-domain, points |",
        "|---" * (len(COLUMNS) + 5) + "|",
    ]
    groups: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for run in found:
        groups.setdefault((run["variant"], run["task"], run["examples"]), []).append(run["accuracy"])
    for (variant, task, examples), accuracies in groups.items():
        cells = []
        for method in COLUMNS.values():
            values = [one[method] for one in accuracies if method in one]
            cells.append(with_interval(estimate(values, within=(0, 1))) if values else "")
        pairs = [
            one[methods.META_KD] - one[methods.SINGLE_DOMAIN_DISTILLATION]
            for one in accuracies
            if methods.SINGLE_DOMAIN_DISTILLATION in one
        ]
        cells.append(with_interval(estimate(pairs)).replace(" %", "") if pairs else "")
        told = f"| {variant} | {task}, {TASKS[task]} | {examples} | {len(accuracies)} |"
        lines.append(f"{told} {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Every run asked for that isn't in the file yet, then the table of all that are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--examples", type=int, nargs="+", default=EXAMPLES)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--variants", action="store_true", help="also leave each part out in turn")
    parser.add_argument("--recorded", action="store_true", help="run nothing, print what is in the file")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    found: list[Run] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {(run["variant"], run["task"], run["examples"], run["seed"]) for run in found}
    wanted = cases(asked.tasks, asked.examples, asked.seeds, variants=asked.variants)
    for case in () if asked.recorded else wanted:
        if case in done:
            continue
        variant, task, amount, seed = case
        values = accuracy(*case)
        found.append({"variant": variant, "task": task, "examples": amount, "seed": seed, "accuracy": values})
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main()
