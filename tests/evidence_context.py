"""Context distillation beside its baselines over numbers of demonstrations, on tasks of the built-in family.

    python -m tests.evidence_context [--table adapters|cues] [--tasks TASK ...] [--counts K ...]

prints a table of docs/results/context-distillation.md. It runs the recipe layer of `edgeicl compile
recipes/quickstart.yaml` with the overrides below, in the cache: stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from pathlib import Path

from edgeicl.cache_lock import in_use
from edgeicl.distill import evaluate as methods
from edgeicl.distill.stage import distill
from edgeicl.job import resolve
from edgeicl.specs.measurement import Estimate, Evaluation
from edgeicl.store import Store, cache_root
from edgeicl.tasks import nli_family

TASKS = ("action", "animal", "today", "entailment")
LEARNED_IN_CONTEXT = ("action", "animal", "today")
COUNTS = (1, 4, 8, 12)
ADAPTERS = ("none", "lora", "bitfit")
# The learning rate of each, in thousandths: biases alone move the outputs less.
THOUSANDTHS = {"none": 1, "lora": 1, "bitfit": 3}
DATA = ("in_domain", "out_of_domain")


@dataclass(frozen=True)
class Case:
    """One build: a task, how many demonstrations, what of the student is trained.

    With a `cue`, another task of the family, demonstrations are texts to which both give the same answer.
    """

    task: str
    count: int
    adapter: str = "none"
    cue: str = ""

    @property
    def overrides(self) -> list[str]:
        """What follows `--set` on the command line."""
        source = f"builtin:nli/{self.task}"
        shown = [f'distill.demonstrations.source={{source: "file:{self._with_cue()}"}}'] if self.cue else []
        return [
            *shown,
            f'task.train={{source: "{source}", split: train, limit: 2000}}',
            f'task.in_domain={{source: "{source}", split: test, limit: 300}}',
            f'task.out_of_domain={{source: "{source}", split: out_of_domain, limit: 300}}',
            f"distill.demonstrations.count={self.count}",
            f"distill.student.adapter={self.adapter}",
            f"distill.training.learning_rate={THOUSANDTHS[self.adapter]}.0e-3",
            "distill.transfer_examples=512",
            "distill.require_gain=false",
        ]

    def _with_cue(self, texts: int = 400) -> Path:
        """A file of training texts, the same ones each time, on which task and cue agree."""
        answer, cue = nli_family.TASKS[self.task], nli_family.TASKS[self.cue]
        agree = (pair for pair in nli_family.pairs("in_domain", "train", 99) if answer(pair) == cue(pair))
        label = {True: nli_family.YES, False: nli_family.NO}
        rows = (
            {"premise": pair.premise, "hypothesis": pair.hypothesis, "label": label[answer(pair)]}
            for pair in islice(agree, texts)
        )
        path = cache_root() / "evidence" / f"{self.task}-{self.cue}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return path


def evaluation(case: Case) -> Evaluation:
    """The accuracy table of a case, from the cache where it is whole there."""
    job = resolve("quickstart", recipe_overrides=case.overrides, builds=False)
    found = distill(job.recipe, store=Store(cache_root()), base_folder=job.base_folder)
    return found.evaluation


def accuracy(found: Evaluation, method: str, data: str) -> Estimate:
    (row,) = (row for row in found.rows if (row.method, row.data) == (method, data))
    return row.accuracy


def told(value: Estimate) -> str:
    return f"{100 * value.mean:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def more(value: Estimate, than: Estimate) -> str:
    """Relative, of the means, in percent."""
    return f"{100 * (value.mean / than.mean - 1):+.0f} %"


def beside_baselines(tasks: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Rows: all weights trained."""
    return _compared([Case(task, count) for task in tasks for count in counts])


def with_cues(tasks: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Rows: demonstrations that another task of the family answers in the same way."""
    pairs = [pair for pair in permutations(LEARNED_IN_CONTEXT, 2) if pair[0] in tasks]
    return _compared([Case(task, count, cue=cue) for task, cue in pairs for count in counts])


def _compared(cases: Sequence[Case]) -> list[str]:
    lines = [
        "| task | k | data | in-context student | fine-tuned | distilled | over in-context | over fine-tuned "
        "| in-context teacher |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        found = evaluation(case)
        for data in DATA:
            shown, tuned, ours, teacher = (
                accuracy(found, method, data)
                for method in (
                    methods.IN_CONTEXT_STUDENT,
                    methods.FINE_TUNING,
                    methods.CONTEXT_DISTILLATION,
                    methods.IN_CONTEXT_TEACHER,
                )
            )
            task = f"{case.task}, cue {case.cue}" if case.cue else case.task
            cells = [task, str(case.count), data.replace("_", "-"), *map(told, (shown, tuned, ours))]
            cells += [more(ours, shown), more(ours, tuned), told(teacher)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def by_adapter(tasks: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Rows: what of the student is trained."""
    lines = ["| task | k | data | all weights | LoRA | BitFit |", "|---|---|---|---|---|---|"]
    for task in tasks:
        for count in counts:
            found = [evaluation(Case(task, count, adapter)) for adapter in ADAPTERS]
            for data in DATA:
                accuracies = [told(accuracy(one, methods.CONTEXT_DISTILLATION, data)) for one in found]
                cells = [task, str(count), data.replace("_", "-"), *accuracies]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


TABLES = {"baselines": beside_baselines, "adapters": by_adapter, "cues": with_cues}


def main() -> None:
    """Prints a table; accuracies in percent, with 95 % intervals over five demonstration seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=list(TABLES), default="baselines")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with in_use(cache_root()):
        lines = TABLES[arguments.table](arguments.tasks, arguments.counts)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
