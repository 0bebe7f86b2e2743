"""MEND beside plain demonstrations and its baselines, and what each part of its training adds.

    python -m tests.evidence_mend

prints the tables of docs/results/mend.md. It runs the recipe layer of `edgeicl compile recipes/mend.yaml` with
the overrides below, in the cache: stopped, it goes on where it was.
"""

from __future__ import annotations

import logging
import sys

from edgeicl.cache_lock import in_use
from edgeicl.distill import evaluate as methods
from edgeicl.distill.stage import distill
from edgeicl.job import resolve
from edgeicl.report.facts import percent, query_cost_text, with_interval
from edgeicl.specs.measurement import Estimate, Evaluation
from edgeicl.store import Store, cache_root

CASES: dict[str, tuple[str, ...]] = {
    "the recipe": (),
    "without stage 1": ("distill.mend.on_text.steps=0",),
    "lambda 0: cross-entropy alone": ("distill.mend.on_tasks.kl=0.0",),
    "target task unseen": ("distill.mend.target=unseen",),
}
COUNTS = (16, 12)
_EXAMPLES = ("task.in_domain.limit=500", "task.out_of_domain.limit=500")
DATA = ("in_domain", "out_of_domain")
METHODS = (
    methods.ZERO_SHOT_STUDENT,
    methods.IN_CONTEXT_STUDENT,
    methods.FINE_TUNING,
    methods.MEND,
)


def evaluation(*overrides: str) -> Evaluation:
    """The accuracy table of the recipe with `overrides`, from the cache where it is whole there."""
    job = resolve("mend", recipe_overrides=[*_EXAMPLES, *overrides], builds=False)
    return distill(job.recipe, store=Store(cache_root()), base_folder=job.base_folder).evaluation


def accuracy(found: Evaluation, method: str, data: str) -> Estimate:
    (row,) = (row for row in found.rows if (row.method, row.data) == (method, data))
    return row.accuracy


def beside_baselines() -> list[str]:
    """Rows: methods, for each number of demonstrations; then what a query costs."""
    found = {count: evaluation(f"distill.demonstrations.count={count}") for count in COUNTS}
    lines = ["| demonstrations | method | in-domain | out-of-domain |", "|---|---|---|---|"]
    for count, one in found.items():
        for method in METHODS:
            cells = [with_interval(accuracy(one, method, data)) for data in DATA]
            lines.append(f"| {count} | {method} | {' | '.join(cells)} |")
    costs = [query_cost_text(one.query_cost) for one in found.values() if one.query_cost is not None]
    lost = [
        f"{count} demonstrations, {data.replace('_', '-')}: "
        + percent(accuracy(one, methods.IN_CONTEXT_STUDENT, data).mean - accuracy(one, methods.MEND, data).mean)
        for count, one in found.items()
        for data in DATA
    ]
    return [*lines, "", *costs, "", f"Lost against plain demonstrations: {'; '.join(lost)}."]


def by_part() -> list[str]:
    """Rows: the recipe, and the recipe without one of its parts."""
    lines = ["| training | in-domain | out-of-domain |", "|---|---|---|"]
    for name, overrides in CASES.items():
        found = evaluation(*overrides)
        cells = [with_interval(accuracy(found, methods.MEND, data)) for data in DATA]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Prints both tables; accuracies with 95 % intervals over five demonstration seeds."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with in_use(cache_root()):
        lines = [*beside_baselines(), "", *by_part()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
