"""Meta-KD against single-domain distillation on the built-in family, by the amount of in-domain data.

`python -m tests.evidence_meta_kd` writes docs/results/meta-kd.json after every run and goes on after the last
one that is in it; remove the file to begin anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from edgeicl.distill.stage import distill
from edgeicl.specs.catalog import load_recipe
from edgeicl.store import Store, cache_root

RESULTS = Path(__file__).parents[1] / "docs/results/meta-kd.json"
TASKS = {"action": "place", "entailment": "negation"}
"""Task -> the domain that is made scarce: verbs that all domains share, and a rule of one domain's own."""
AMOUNTS = (8, 16, 32)
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


def runs() -> Iterator[tuple[str, str, int, int]]:
    """Variant, task, examples, seed: the comparison first, for all seeds, then what is left out."""
    for amount in AMOUNTS:
        for seed in SEEDS:
            for task in TASKS:
                yield "Meta-KD", task, amount, seed
    for seed in SEEDS:
        for name in VARIANTS:
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


def main() -> None:
    """Every run that isn't in the file yet."""
    logging.basicConfig(level=logging.WARNING)
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {(run["variant"], run["task"], run["examples"], run["seed"]) for run in found}
    for run in runs():
        if run in done:
            continue
        variant, task, amount, seed = run
        values = accuracy(*run)
        found.append({"variant": variant, "task": task, "examples": amount, "seed": seed, "accuracy": values})
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
