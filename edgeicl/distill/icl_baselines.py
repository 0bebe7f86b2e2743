"""What in-context learning distillation is compared with; none of it changes what is deployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeicl.distill import evaluate as methods
from edgeicl.distill.baselines import fine_tuned_predictions
from edgeicl.distill.predictions import ONLY, PREDICTIONS, Predictor, write_predictions
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.distill.voting import Load, Sets, voted_predictions
from edgeicl.store import CHECKPOINT, Workers
from edgeicl.tasks.example import Example


def build_baselines(
    folder: Path,
    *,
    predictor: Predictor,
    student: Load,
    teacher: Load,
    tuned_teacher: Load | None,
    demonstrations: Mapping[str, Sequence[Sequence[Example]]],
    sets: Sets,
    settings: TrainingSettings,
    seed: int,
    workers: Workers,
) -> None:
    """Writes the predictions of student and teacher as they are given, and of the tuned teacher.

    In context, every model answers by the vote of the same `sets`; fine-tuned, the student has seen all
    `demonstrations` of a seed's sets.
    """
    kept = folder / CHECKPOINT
    found = fine_tuned_predictions(
        student,
        predictor,
        {name: _distinct(several) for name, several in demonstrations.items()},
        settings=settings,
        seed=seed,
        kept=kept,
        workers=workers,
    )
    alone = {ONLY: [predictor.encoder.leading]}
    asked: list[tuple[str, Load, Sets]] = [
        (methods.ZERO_SHOT_STUDENT, student, alone),
        (methods.IN_CONTEXT_STUDENT, student, sets),
        (methods.ZERO_SHOT_TEACHER, teacher, alone),
        (methods.IN_CONTEXT_TEACHER, teacher, sets),
    ]
    if tuned_teacher:
        asked.append((methods.TUNED_TEACHER, tuned_teacher, sets))
    for method, load, before in asked:
        found |= voted_predictions(predictor, load, method, before, kept=kept, workers=workers)
    if workers.is_writer:
        write_predictions(folder / PREDICTIONS, found)


def _distinct(several: Sequence[Sequence[Example]]) -> list[Example]:
    return list({id(example): example for shown in several for example in shown}.values())
