"""In-context learning distillation with and without the language-modelling term, under both paradigms.

`python -m tests.evidence_icl` prints the tables of docs/results/icl.md. Every stage is in the store: a command
that was killed goes on, and one that is done prints at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import defaultdict
from pathlib import Path

from edgeicl.distill.evaluate import ICL_DISTILLATION, IN_CONTEXT_TUNING, TABLE_ORDER
from edgeicl.distill.result import DistillResult
from edgeicl.distill.stage import distill
from edgeicl.distill.workers import workers
from edgeicl.numerics.statistics import estimate
from edgeicl.specs.catalog import load_recipe
from edgeicl.specs.measurement import Estimate
from edgeicl.store import Store, cache_root

RECIPES = ("icl-meta", "icl-multitask")
LANGUAGE_MODELLING = {"": 0.0, " + language modelling": 0.5}
TEXT = "{source: 'builtin:nli', split: train, limit: 1000}"

Cells = dict[tuple[str, str], list[float]]
"""Accuracies by method and data."""


def run(recipe: str, *, seed: int, weight: float) -> DistillResult:
    """The recipe layer alone, at another seed and weight of the text."""
    overrides = [f"seed={seed}", f"distill.objective.lm={weight}", f"distill.text={TEXT}"]
    return distill(
        load_recipe(recipe, overrides), store=Store(cache_root(), workers=workers()), base_folder=Path.cwd()
    )


def measured(recipe: str, seeds: list[int]) -> Cells:
    """All accuracies: of every seed, and of every demonstration set of it."""
    found: Cells = defaultdict(list)
    for seed in seeds:
        for suffix, weight in LANGUAGE_MODELLING.items():
            for row in run(recipe, seed=seed, weight=weight).evaluation.rows:
                # All other methods are the same with the term and without.
                if row.method in (ICL_DISTILLATION, IN_CONTEXT_TUNING):
                    found[row.method + suffix, row.data] += row.accuracy.values
                elif not weight:
                    found[row.method, row.data] += row.accuracy.values
    return found


def table(found: Cells) -> str:
    """Means with intervals over all values, as Markdown."""
    methods = sorted({method for method, _ in found}, key=lambda name: TABLE_ORDER.index(name.split(" +")[0]))
    lines = ["| method | in-domain | out-of-domain | values |", "|---|---|---|---|"]
    for method in methods:
        cells = [estimate(found[method, data], within=(0, 1)) for data in ("in_domain", "out_of_domain")]
        told = " | ".join(_told(cell) for cell in cells)
        lines.append(f"| {method} | {told} | {len(cells[0].values)} |")
    return "\n".join(lines)


def _told(cell: Estimate) -> str:
    interval = f" [{100 * cell.low:.1f}, {100 * cell.high:.1f}]" if len(cell.values) > 1 else ""
    return f"{100 * cell.mean:.1f} %{interval}"


def main() -> None:
    """Prints a table for each paradigm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the recipes")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, choices=RECIPES)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for recipe in arguments.recipes:
        sys.stdout.write(f"\n{recipe}, seeds {arguments.seeds}\n\n{table(measured(recipe, arguments.seeds))}\n")


if __name__ == "__main__":
    main()
