"""A student that is not trained and carries its demonstrations: in-context learning on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeicl.distill import evaluate as methods
from edgeicl.distill.baselines import untrained_predictions
from edgeicl.distill.predictions import (
    ONLY,
    PREDICTIONS,
    read_predictions,
    write_predictions,
)
from edgeicl.distill.result import DistillResult
from edgeicl.distill.student import MODEL
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import seed_name
from edgeicl.models.model_folder import weights_digest
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.prefix import PREFIX_SOURCE, write_prefix_source
from edgeicl.store import CHECKPOINT, StageOutput
from edgeicl.tasks.examples_digest import examples_digest


def carry_demonstrations(run: TaskRun, student: StageOutput) -> DistillResult:
    """Method `none` with `prefix: demonstrations`: a prefix of token ids for each demonstration seed.

    `student` is the stage that holds the student as it is.

    Raises:
        DataError: too few examples for the demonstrations, or prompts that the student can't read.
    """
    contexts, deviations = carried_contexts(run)

    def build(folder: Path) -> None:
        if run.writes:
            found = untrained_predictions(
                run.label_reader(student.path / MODEL),
                run.predictor,
                zero_shot=methods.ZERO_SHOT_STUDENT,
                in_context=methods.IN_CONTEXT_STUDENT,
                contexts=contexts,
                kept=folder / CHECKPOINT,
            )
            write_predictions(folder / PREDICTIONS, found)
            sets = [np.array(ids, dtype=np.int64) for ids in contexts.values()]
            write_prefix_source(folder / PREFIX_SOURCE, sets)

    inputs = run.task_inputs() | {
        "student": student.digest,
        "contexts": contexts,
        "evaluation": examples_digest(run.evaluation.items()),
    }
    output = run.stage("demonstrations", inputs, build)
    predictions = read_predictions(output.path / PREDICTIONS)
    evaluation = run.table(methods.IN_CONTEXT_STUDENT, predictions, runs=(ONLY, *contexts))
    model = student.path / MODEL
    return DistillResult(
        model,
        weights_digest(model),
        evaluation,
        tuple(run.outputs),
        source=run.student_folder,
        deviations=run.deviations + deviations,
        prefix=output.path / PREFIX_SOURCE,
    )


def carried_contexts(run: TaskRun) -> tuple[dict[str, list[int]], tuple[Deviation, ...]]:
    """Tokens of each demonstration set, by its seed's name, and what could not be dealt out as asked."""
    seeds = run.recipe.distill.demonstrations.seeds
    data = run.dealt(seeds, transfer_examples=0, shown_from=run.demonstration_sources())
    contexts = {seed_name(seed): run.encoder.demonstrations(each) for seed, each in data.demonstrations.items()}
    return contexts, data.deviations
