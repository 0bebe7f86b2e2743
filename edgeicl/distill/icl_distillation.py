"""In-context learning distillation (Huang et al., arXiv 2212.10670), stage by stage.

A teacher that is tuned in context itself, its gain, its targets, the student, the same student tuned without a
teacher, baselines, evaluation. At inference several demonstration sets vote; deployed are those of the seed
after which the student comes closest to its teacher. Evaluation data decides nothing.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.distill import evaluate as methods
from edgeicl.distill.gain import certain_gain
from edgeicl.distill.icl_baselines import build_baselines
from edgeicl.distill.icl_material import IclMaterial
from edgeicl.distill.icl_teacher import (
    build_episode_targets,
    build_gain,
    divergences,
    read_episode_targets,
    read_scores,
)
from edgeicl.distill.in_context_tuning import SoftLoss, TextTerm
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import (
    ONLY,
    PREDICTIONS,
    read_predictions,
    write_predictions,
)
from edgeicl.distill.result import DistillResult
from edgeicl.distill.student import MODEL, best_student
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import read_gain, seed_name
from edgeicl.distill.tuned_model import build_tuned
from edgeicl.distill.voting import scores_after, voted_predictions
from edgeicl.errors import EdgeiclError
from edgeicl.models.model_folder import weights_digest
from edgeicl.specs.measurement import Evaluation
from edgeicl.specs.prefix import PREFIX_SOURCE, write_prefix_source
from edgeicl.store import CHECKPOINT, StageOutput, digest_of

log = logging.getLogger(__name__)

DIVERGENCES = "divergences.json"


class IclDistillation:
    """The stages of method `icl` on one target task."""

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.recipe, self.settings = run.recipe, run.recipe.distill
        self.icl, self.objective = self.settings.icl, self.settings.objective
        self.material = IclMaterial(run)

    def distill(self) -> DistillResult:
        """Runs every stage that does not stand in the store."""
        self._check_teacher()
        self.material.check_models(self.run.teacher_folder)
        teacher = self._tuned_teacher() if self.icl.teacher_epochs else None
        taught_by = teacher.path / MODEL if teacher else self.run.teacher_folder
        gain_output = self.run.stage(
            "teacher-gain",
            self.material.target_inputs | self._teacher_inputs(teacher),
            partial(self._build_gain, taught_by=taught_by),
        )
        gain = read_gain(gain_output.path)
        certain = certain_gain(gain, required=self.settings.require_gain)
        targets = self.run.stage(
            "teacher-targets",
            self.material.episode_inputs | self._teacher_inputs(teacher),
            partial(self._build_targets, taught_by=taught_by),
        )
        student = self._student(targets, taught_by)
        tuned = self._student_without_teacher()
        prefix = self.run.stage(
            "prefix",
            {"student": student.digest, "gain": gain_output.digest},
            partial(self._build_prefix, student=student, scores=gain_output),
        )
        deployed, diverged = best_student(_read_divergences(prefix.path))
        log.info("the demonstration sets of seed %d are deployed", deployed)
        baselines = self.run.stage(
            "baselines",
            self.material.target_inputs
            | self._teacher_inputs(teacher)
            | self._student_inputs()
            | self.material.evaluation_inputs
            | {"epochs": self.settings.baseline_epochs},
            partial(self._build_baselines, teacher=teacher),
        )
        evaluation = self._evaluate(
            {methods.IN_CONTEXT_TUNING: tuned, methods.ICL_DISTILLATION: student}, baselines
        )
        return DistillResult(
            student=student.path / MODEL,
            digest=weights_digest(student.path / MODEL),
            evaluation=evaluation.model_copy(
                update={"gain_points": gain.points, "gain_certain": certain, "deployed_seed": deployed}
            ),
            outputs=tuple(self.run.outputs),
            source=self.run.student_folder,
            deviations=self.run.deviations + self.material.deviations + diverged,
            prefix=prefix.path / PREFIX_SOURCE,
        )

    def _check_teacher(self) -> None:
        if self.icl.teacher_epochs and self.run.workers.shards_teacher:
            raise EdgeiclError(
                f"FSDP is configured and distill.icl.teacher_epochs is {self.icl.teacher_epochs}: to be "
                "tuned, a teacher is loaded whole by every process; expected 0, or a launch without FSDP",
                next_step="set distill.icl.teacher_epochs: 0, or turn FSDP off",
            )

    def _tuned_teacher(self) -> StageOutput:
        """The teacher after in-context tuning, as the paper's teachers were."""
        inputs = self.material.episode_inputs | {
            "model": weights_digest(self.run.teacher_folder),
            "training": self.settings.training.deciding(),
            "seed": self.recipe.seed,
            "epochs": self.icl.teacher_epochs,
            "learning_rate": self.icl.teacher_learning_rate,
        }

        def build(folder: Path) -> None:
            self._tune(
                folder,
                self.run.teacher_folder,
                "tuning the teacher",
                epochs=self.icl.teacher_epochs,
                learning_rate=self.icl.teacher_learning_rate,
            )

        return self.run.stage("tuned-teacher", inputs, build)

    def _student(self, targets: StageOutput, taught_by: Path) -> StageOutput:
        objective, blocks = self.objective, self.material.blocks
        inputs = (
            self._student_inputs()
            | self._text_inputs()
            | {
                "targets": targets.digest,
                "objective": objective.model_dump(mode="json"),
                "soft_loss": self.icl.soft_loss,
            }
        )

        def build(folder: Path) -> None:
            soft = SoftLoss(
                read_episode_targets(targets.path),
                objective.kl,
                temperature=objective.temperature,
                fading=self.icl.soft_loss == "fading",
            )
            text = None if blocks is None else TextTerm(blocks, objective.lm, self._teacher(taught_by))
            self._tune(folder, self.run.student_folder, "distilling", ce=objective.ce, soft=soft, text=text)

        return self.run.stage("student", inputs, build)

    def _student_without_teacher(self) -> StageOutput:
        """The baseline that tells what the teacher was good for: the same training with the hard losses alone.

        Where the student learns from its teacher alone, this one learns from the labels nevertheless.
        """
        ce, blocks = self.objective.ce or 1.0, self.material.blocks

        def build(folder: Path) -> None:
            text = None if blocks is None else TextTerm(blocks, self.objective.lm)
            self._tune(folder, self.run.student_folder, "in-context tuning", ce=ce, text=text)

        inputs = (
            self.material.episode_inputs
            | self._student_inputs()
            | self._text_inputs()
            | {"ce": ce, "lm": self.objective.lm}
        )
        return self.run.stage("student", inputs, build, name="student without a teacher")

    def _tune(
        self,
        folder: Path,
        source: Path,
        description: str,
        *,
        ce: float = 1.0,
        soft: SoftLoss | None = None,
        text: TextTerm | None = None,
        **changed: Any,
    ) -> None:
        build_tuned(
            folder,
            source,
            self.material.episodes,
            over=self.objective.over,
            score=self.recipe.task.score,
            ce=ce,
            soft=soft,
            text=text,
            settings=self.run.training(**changed),
            seed=self.recipe.seed,
            device=self.run.device,
            is_writer=self.run.writes,
            description=description,
        )

    def _build_gain(self, folder: Path, taught_by: Path) -> None:
        build_gain(
            folder,
            partial(self._teacher, self.run.teacher_folder),
            partial(self._teacher, taught_by),
            self.run.encoder,
            self.material.data.measured,
            self.material.sets,
            self.run.workers,
        )

    def _build_targets(self, folder: Path, taught_by: Path) -> None:
        load = partial(self._teacher, taught_by)
        build_episode_targets(
            folder, load, self.material.episodes, over=self.objective.over, workers=self.run.workers
        )

    def _build_prefix(self, folder: Path, student: StageOutput, scores: StageOutput) -> None:
        """Writes how far student and teacher are apart after each seed's sets, and the nearest seed's sets."""
        said = scores_after(
            partial(self.run.label_reader, student.path / MODEL),
            self.material.measured,
            list(self.run.encoder.tokens.values()),
            self.material.sets,
            kept=folder / CHECKPOINT,
            workers=self.run.workers,
            description="student beside teacher",
        )
        if not self.run.writes:
            return
        apart = divergences(read_scores(scores.path), said)
        (folder / DIVERGENCES).write_text(json.dumps(apart, indent=1) + "\n")
        deployed, _ = best_student(_read_divergences(folder))
        write_prefix_source(
            folder / PREFIX_SOURCE,
            [np.array(one, dtype=np.int64) for one in self.material.sets[seed_name(deployed)]],
        )

    def _build_baselines(self, folder: Path, teacher: StageOutput | None) -> None:
        build_baselines(
            folder,
            predictor=self.run.predictor,
            student=partial(self.run.label_reader, self.run.student_folder),
            teacher=partial(self._teacher, self.run.teacher_folder),
            tuned_teacher=partial(self._teacher, teacher.path / MODEL) if teacher else None,
            demonstrations={seed_name(seed): several for seed, several in self.material.data.shown.items()},
            sets=self.material.sets,
            settings=self.run.training(epochs=self.settings.baseline_epochs),
            seed=self.recipe.seed,
            workers=self.run.workers,
        )

    def _evaluate(self, students: dict[str, StageOutput], baselines: StageOutput) -> Evaluation:
        """The accuracy table of `students` (by method) and of the baselines."""

        def build(folder: Path) -> None:
            found = read_predictions(baselines.path / PREDICTIONS)
            for method, output in students.items():
                found |= voted_predictions(
                    self.run.predictor,
                    partial(self.run.label_reader, output.path / MODEL),
                    method,
                    self.material.sets,
                    kept=folder / CHECKPOINT,
                    workers=self.run.workers,
                )
            if self.run.writes:
                write_predictions(folder / PREDICTIONS, found)

        inputs = (
            self.material.target_inputs
            | self.material.evaluation_inputs
            | {
                "students": {method: output.digest for method, output in students.items()},
                "baselines": baselines.digest,
            }
        )
        predictions = read_predictions(self.run.stage("evaluation", inputs, build).path / PREDICTIONS)
        return self.run.table(methods.ICL_DISTILLATION, predictions, runs=(ONLY, *self.material.sets))

    def _teacher_inputs(self, tuned: StageOutput | None) -> dict[str, Any]:
        return {
            "teacher": weights_digest(self.run.teacher_folder),
            "load_in": self.run.teacher.load_in,
            "tuned": tuned and tuned.digest,
        }

    def _student_inputs(self) -> dict[str, Any]:
        return {
            "student": self.run.student_digest,
            "training": self.settings.training.deciding(),
            "seed": self.recipe.seed,
        }

    def _text_inputs(self) -> dict[str, Any]:
        blocks = self.material.blocks
        return {"text": None if blocks is None else digest_of(blocks.tolist())}

    def _teacher(self, folder: Path) -> LabelReader:
        """The teacher in `folder`, once it is known to fit in memory with what it scores."""
        return self.run.teacher_reader(
            folder, self.run.teacher.load_in, scoring=self.material.scoring_size(self.run.device.type)
        )


def _read_divergences(folder: Path) -> dict[int, float]:
    """Mean KL of the student to its teacher, by demonstration seed."""
    found = json.loads((folder / DIVERGENCES).read_text())
    return {int(name.rpartition("_")[2]): value for name, value in found.items()}
