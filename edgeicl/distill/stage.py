"""The recipe layer: from a recipe to a student, by the recipe's method.

Every step is a stage of the store, so a killed run goes on at the last finished one, and inside training at
the last checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import PartialState

from edgeicl.distill import evaluate as methods
from edgeicl.distill.carried_demonstrations import carry_demonstrations
from edgeicl.distill.context_distillation import ContextDistillation
from edgeicl.distill.icl_distillation import IclDistillation
from edgeicl.distill.mend import Mend
from edgeicl.distill.meta_kd.meta_distillation import MetaDistillation
from edgeicl.distill.predictions import ONLY
from edgeicl.distill.result import DistillResult
from edgeicl.distill.student import MODEL
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.training_options import check_options
from edgeicl.models.model_folder import weights_digest
from edgeicl.specs.recipe import Recipe
from edgeicl.store import Store


def distill(recipe: Recipe, *, store: Store, base_folder: Path) -> DistillResult:
    """Runs the recipe layer. Under a launcher every process calls it.

    Raises:
        DataError: data or models that are missing or don't fit together; found before anything is trained.
        EdgeiclError: an option of the training that this machine can't do; found first of all.
        GainError: the teacher gains nothing from demonstrations, unless `distill.require_gain` is off.
    """
    training = recipe.distill.training
    if recipe.distill.method != "none":
        check_options(
            optimizer=training.optimizer,
            mixed_precision=training.mixed_precision,
            tracker=training.tracker,
            device=torch.device(PartialState().device),
        )
    run = TaskRun(recipe, store, base_folder)
    match recipe.distill.method:
        case "context":
            return ContextDistillation(run).distill()
        case "icl":
            return IclDistillation(run).distill()
        case "mend":
            return Mend(run).distill()
        case "meta_kd":
            return MetaDistillation(run).distill()
        case "none":
            return _unchanged(run)


def _unchanged(run: TaskRun) -> DistillResult:
    """Method `none`: the student as it is, alone or with its demonstrations."""
    student = run.unchanged_student()
    if run.recipe.distill.prefix == "demonstrations":
        return carry_demonstrations(run, student)
    evaluated = run.evaluate({ONLY: student}, methods.ZERO_SHOT_STUDENT, baselines=None)
    model = student.path / MODEL
    return DistillResult(
        model,
        weights_digest(model),
        evaluated,
        tuple(run.outputs),
        source=run.student_folder,
        deviations=run.deviations,
    )
