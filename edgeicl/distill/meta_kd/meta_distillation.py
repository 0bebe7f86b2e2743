"""Meta-KD (Pan et al., arXiv 2012.01266), stage by stage.

Weights of all training examples; a teacher for all domains; its answers; a student for one domain that follows
first the teacher's inner states, then its answers. The baselines take the same way with less in it.
"""

from __future__ import annotations

from pathlib import Path

from edgeicl.distill import evaluate as methods
from edgeicl.distill.baselines import fine_tuned_predictions, untrained_predictions
from edgeicl.distill.meta_kd.course import baseline_courses, meta_kd_course
from edgeicl.distill.meta_kd.meta_task import MetaTask
from edgeicl.distill.meta_kd.student_stage import StudentStage
from edgeicl.distill.meta_kd.teacher_stage import TeacherStage
from edgeicl.distill.predictions import ONLY, PREDICTIONS, write_predictions
from edgeicl.distill.result import DistillResult
from edgeicl.distill.student import MODEL
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import seed_name
from edgeicl.models.model_folder import weights_digest
from edgeicl.store import CHECKPOINT, StageOutput
from edgeicl.tasks.examples_digest import examples_digest


class MetaDistillation:
    """The stages of method `meta_kd` on one task."""

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.task = MetaTask(run)

    def distill(self) -> DistillResult:
        """Runs every stage that does not stand in the store."""
        missing_baseline = self.task.check()
        courses = [meta_kd_course(self.task.meta_kd), *baseline_courses(self.task.meta_kd)]
        teacher_stage = TeacherStage(self.task)
        student_stage = StudentStage(self.task, teacher_stage)
        teachers = [teacher_stage.run(course) for course in courses]
        students = [student_stage.run(*pair) for pair in zip(courses, teachers, strict=True)]
        # Meta-KD's student is evaluated as the method, all other trained models as baselines.
        compared = {course.teacher: output for course, output in zip(courses, teachers, strict=True)}
        compared |= {course.student: output for course, output in zip(courses[1:], students[1:], strict=True)}
        baselines = self._baselines(compared, in_context_student=not missing_baseline)
        evaluation = self.run.evaluate(
            {ONLY: students[0]},
            methods.META_KD,
            baselines=baselines,
            baseline_runs=tuple(self.task.contexts),
        )
        deployed = students[0].path / MODEL
        return DistillResult(
            student=deployed,
            digest=weights_digest(deployed),
            evaluation=evaluation,
            outputs=tuple(self.run.outputs),
            deviations=self.run.deviations + self.task.deviations + missing_baseline,
            source=self.run.student_folder,
        )

    def _baselines(self, compared: dict[str, StageOutput], *, in_context_student: bool) -> StageOutput:
        task = self.task
        shown = ((seed_name(seed), examples) for seed, examples in task.demonstrations.items())
        inputs = task.common_inputs() | {
            "compared": {name: output.digest for name, output in compared.items()},
            "student": self.run.student_digest,
            "demonstrations": examples_digest(shown),
            "evaluation": examples_digest(self.run.evaluation.items()),
            "epochs": task.settings.baseline_epochs,
        }

        def build(folder: Path) -> None:
            kept, predictor, workers = folder / CHECKPOINT, self.run.predictor, self.run.workers
            found = fine_tuned_predictions(
                lambda: self.run.label_reader(self.run.student_folder),
                predictor,
                {ONLY: task.own},
                settings=task.run.training(epochs=task.settings.baseline_epochs),
                seed=task.recipe.seed,
                kept=kept,
                workers=workers,
            )
            found |= untrained_predictions(
                self.run.label_reader(self.run.student_folder),
                predictor,
                zero_shot=methods.ZERO_SHOT_STUDENT,
                in_context=methods.IN_CONTEXT_STUDENT,
                contexts=task.contexts if in_context_student else {},
                kept=kept,
                workers=workers,
            )
            found |= untrained_predictions(
                self.run.label_reader(task.run.teacher_folder),
                predictor,
                zero_shot=methods.ZERO_SHOT_TEACHER,
                in_context=methods.IN_CONTEXT_TEACHER,
                contexts=task.contexts,
                kept=kept,
                workers=workers,
            )
            for name, output in compared.items():
                found |= predictor.predict(
                    self.run.label_reader(output.path / MODEL),
                    name,
                    ONLY,
                    self.run.encoder.leading,
                    kept=kept,
                    workers=workers,
                )
            if self.run.writes:
                write_predictions(folder / PREDICTIONS, found)

        return self.run.stage("baselines", inputs, build)
