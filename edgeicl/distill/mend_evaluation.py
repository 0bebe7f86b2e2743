"""The accuracy table of MEND: vectors of each demonstration set beside what needs no hypernetwork."""

from __future__ import annotations

import statistics
from pathlib import Path

from edgeicl.distill import evaluate as methods
from edgeicl.distill.baselines import fine_tuned_predictions, untrained_predictions
from edgeicl.distill.compression import read_vectors
from edgeicl.distill.mend_data import MendData
from edgeicl.distill.predictions import (
    ONLY,
    PREDICTIONS,
    read_predictions,
    write_predictions,
)
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import seed_name
from edgeicl.distill.voting import voted_predictions
from edgeicl.models.flops import prompt_flops
from edgeicl.models.model_folder import model_config
from edgeicl.specs.measurement import Evaluation, QueryCost
from edgeicl.specs.prefix import PREFIX_SOURCE, read_prefix_source
from edgeicl.store import CHECKPOINT, StageOutput
from edgeicl.tasks.examples_digest import examples_digest


def evaluate(run: TaskRun, data: MendData, *, gain: StageOutput, vectors: StageOutput) -> Evaluation:
    """Accuracy of the vectors of each demonstration set and of the baselines, and MEND tested against each.

    `gain` is the stage that measured the same demonstrations, `vectors` the one that compressed them.
    """
    baselines = _baselines(run, data, gain)

    def build(folder: Path) -> None:
        found = read_predictions(baselines.path / PREDICTIONS)
        reader = run.label_reader(run.student_folder)
        for name, before in zip(data.named_contexts, read_vectors(vectors.path), strict=True):
            found |= run.predictor.predict(
                reader, methods.MEND, name, before, kept=folder / CHECKPOINT, workers=run.workers
            )
        if data.mend.votes > 1:
            found |= voted_predictions(
                run.predictor,
                lambda: reader,
                methods.MEND_VOTE,
                {ONLY: read_prefix_source(vectors.path / PREFIX_SOURCE)},
                kept=folder / CHECKPOINT,
                workers=run.workers,
            )
        if run.writes:
            write_predictions(folder / PREDICTIONS, found)

    output = run.stage("evaluation", {"vectors": vectors.digest, "baselines": baselines.digest}, build)
    predictions = read_predictions(output.path / PREDICTIONS)
    table = run.table(methods.MEND, predictions, runs=(ONLY, *data.named_contexts))
    return table.model_copy(update={"query_cost": _query_cost(run, data)})


def _baselines(run: TaskRun, data: MendData, gain: StageOutput) -> StageOutput:
    settings, seed = run.recipe.distill, run.recipe.seed

    def build(folder: Path) -> None:
        kept = folder / CHECKPOINT
        found = fine_tuned_predictions(
            lambda: run.label_reader(run.student_folder),
            run.predictor,
            {seed_name(chosen): shown for chosen, shown in data.target.demonstrations.items()},
            settings=run.training(epochs=settings.baseline_epochs),
            seed=seed,
            kept=kept,
            workers=run.workers,
        )
        found |= untrained_predictions(
            run.label_reader(run.student_folder),
            run.predictor,
            zero_shot=methods.ZERO_SHOT_STUDENT,
            in_context=methods.IN_CONTEXT_STUDENT,
            contexts=data.named_contexts,
            kept=kept,
            workers=run.workers,
        )
        if run.writes:
            write_predictions(folder / PREDICTIONS, found)

    inputs = {
        "gain": gain.digest,
        "evaluation": examples_digest(run.evaluation.items()),
        "training": settings.training.deciding(),
        "epochs": settings.baseline_epochs,
        "seed": seed,
    }
    return run.stage("baselines", inputs, build)


def _query_cost(run: TaskRun, data: MendData) -> QueryCost:
    config, mend = model_config(run.student_folder), data.mend
    query = int(statistics.median(map(len, run.encoder.queries(run.evaluation["in_domain"]))))
    plain = int(statistics.median(map(len, data.named_contexts.values())))
    return QueryCost(
        query_tokens=query,
        demonstrations=run.recipe.distill.demonstrations.count,
        demonstration_tokens=plain,
        prefix_tokens=mend.vectors * mend.votes,
        plain_flops=prompt_flops(config, tokens=plain + query),
        prefix_flops=mend.votes * prompt_flops(config, tokens=query, before=mend.vectors),
    )
