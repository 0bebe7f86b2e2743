"""Context distillation on real text: the five single-sentence tasks of LM-BFF, with models trained here.

    python -m tests.evidence_real_text FOLDER

prints the table of docs/results/real-text.md. FOLDER holds copies of the recipes `lm-bff-*.yaml`, their data
(`k-shot/`, `pool/`) and the models `text-teacher` and `text-student` that `edgeicl pretrain` makes. It runs the
recipe layer of `edgeicl compile lm-bff-TASK.yaml` with the overrides below, in the cache: stopped, it goes on
where it was.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from edgeicl.cache_lock import in_use
from edgeicl.distill import evaluate as methods
from edgeicl.distill.stage import distill
from edgeicl.job import resolve
from edgeicl.specs.measurement import Estimate, Evaluation
from edgeicl.store import Store, cache_root

# Words as in recipes/pretrain/text-teacher.yaml, one token each to its tokenizer.
SENTIMENT = {"0": " bad", "1": " good"}
VERBALIZERS = {
    "sst-2": SENTIMENT,
    "mr": SENTIMENT,
    "cr": SENTIMENT,
    "subj": {"0": " opinion", "1": " fact"},
    "trec": {
        "0": " description",
        "1": " thing",
        "2": " short",
        "3": " person",
        "4": " location",
        "5": " number",
    },
}
DEMONSTRATIONS = 8
ROWS = (
    methods.ZERO_SHOT_STUDENT,
    methods.IN_CONTEXT_STUDENT,
    methods.FINE_TUNING,
    methods.CONTEXT_DISTILLATION,
    methods.ZERO_SHOT_TEACHER,
    methods.IN_CONTEXT_TEACHER,
)


def overrides(task: str) -> list[str]:
    """What follows `--set` on the command line."""
    return [
        'task.pattern="{text} answer:"',
        f"task.verbalizers={json.dumps(VERBALIZERS[task])}",
        "distill.teacher={model: ./text-teacher}",
        "distill.student={model: ./text-student}",
        f"distill.demonstrations.count={DEMONSTRATIONS}",
        "distill.require_gain=false",
        "distill.leakage=drop",
        "distill.training={learning_rate: 1.0e-3, epochs: 4, batch_size: 32}",
    ]


def evaluation(folder: Path, task: str) -> Evaluation:
    """The accuracy table of a task, from the cache where it is whole there."""
    job = resolve(str(folder / f"lm-bff-{task}.yaml"), recipe_overrides=overrides(task), builds=False)
    return distill(job.recipe, store=Store(cache_root()), base_folder=job.base_folder).evaluation


def told(value: Estimate) -> str:
    return f"{100 * value.mean:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def main() -> None:
    """Prints accuracy in percent on LM-BFF's test sets, with 95 % intervals over its five splits."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    lines = [f"| task | gain, points | {' | '.join(ROWS)} |", "|---" * (2 + len(ROWS)) + "|"]
    with in_use(cache_root()):
        for task in VERBALIZERS:
            found = evaluation(Path(sys.argv[1]), task)
            accuracy = {row.method: row.accuracy for row in found.rows if row.data == "in_domain"}
            gain = found.gain_points
            cells = [f"{gain.mean:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]" if gain else ""]
            cells += [told(accuracy[method]) for method in ROWS]
            lines.append(f"| {task} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
