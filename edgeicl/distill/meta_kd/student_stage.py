"""The stages of a student: it follows its teacher's inner states, then its answers."""

from __future__ import annotations

from pathlib import Path

import torch

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.meta_kd.course import Course
from edgeicl.distill.meta_kd.feature_matching import DomainFeature, train_to_match
from edgeicl.distill.meta_kd.meta_task import MetaTask
from edgeicl.distill.meta_kd.states import with_attention
from edgeicl.distill.meta_kd.teacher_stage import TeacherStage, read_answers
from edgeicl.distill.meta_kd.transferability import expertise
from edgeicl.distill.student import MODEL, distill_student
from edgeicl.store import CHECKPOINT, StageOutput


class StudentStage:
    """Distills the student of any course on the examples of its domain."""

    def __init__(self, task: MetaTask, teachers: TeacherStage) -> None:
        self.task, self.teachers = task, teachers

    def run(self, course: Course, teacher: StageOutput) -> StageOutput:
        """The finished student."""
        task = self.task
        start, digest = task.run.student_folder, task.run.student_digest
        # A baseline has no domain head, and with domain_feature alone nothing to match.
        if task.meta_kd.matching.epochs and course.terms.any:
            matched = self._matched(course, teacher)
            start, digest = matched.path / MODEL, matched.digest
        objective = task.settings.objective
        inputs = task.common_inputs() | {
            "teacher": teacher.digest,
            "student": digest,
            "objective": objective.model_dump(mode="json"),
        }

        def build(folder: Path) -> None:
            reader = task.run.label_reader(start)
            losses = distill_student(
                reader,
                rows=task.own_rows,
                tokens=task.tokens,
                targets=read_answers(teacher),
                gold=task.encoder.label_indices(task.own),
                over="verbalizers",
                kl=objective.kl,
                ce=objective.ce,
                temperature=objective.temperature,
                settings=task.run.training(epochs=task.settings.training.epochs),
                seed=task.recipe.seed,
                checkpoint_folder=folder / CHECKPOINT,
                description=f"{course.student}, soft labels",
            )
            task.keep(folder, reader, task.run.student_folder, losses, course.student)

        return task.run.stage("student", inputs, build, name=course.student)

    def _matched(self, course: Course, teacher: StageOutput) -> StageOutput:
        task, matching = self.task, self.task.meta_kd.matching
        digest, weights = self.teachers.weights(course)
        inputs = task.common_inputs() | {
            "teacher": teacher.digest,
            "student": task.run.student_digest,
            "weights": digest,
            "expertise": course.expertise,
            "terms": vars(course.terms),
            "matching": matching.model_dump(mode="json"),
        }

        def build(folder: Path) -> None:
            own = weights[: task.data.own] + course.weighted
            if course.expertise:
                own = own * expertise(read_answers(teacher), task.encoder.label_indices(task.own))
            reader = with_attention(task.run.label_reader(task.run.student_folder))
            taught = with_attention(task.run.label_reader(teacher.path / MODEL))
            losses = train_to_match(
                reader,
                taught,
                rows=task.own_rows,
                weights=own,
                terms=course.terms,
                domain_feature=self._domain_feature(taught, teacher) if course.terms.domain_feature else None,
                skip=task.skip,
                settings=task.run.training(epochs=matching.epochs),
                seed=task.recipe.seed,
                checkpoint_folder=folder / CHECKPOINT,
                description=f"{course.student}, matching",
            )
            task.keep(folder, reader, task.run.student_folder, losses, course.student)

        return task.run.stage("matched-student", inputs, build, name=f"{course.student}, matched")

    def _domain_feature(self, taught: LabelReader, teacher: StageOutput) -> DomainFeature:
        """Of the student's domain, as the teacher's head has it, or a fixed random projection of that."""
        head = self.teachers.read_head(teacher, taught)
        own = torch.zeros(1, dtype=torch.int64, device=taught.device)
        if self.task.meta_kd.matching.domain_target == "feature":
            return lambda content: head.feature(content, own)
        width = taught.model.config.hidden_size
        torch.manual_seed(self.task.recipe.seed)
        random_projection = torch.nn.Linear(width, width).to(taught.device)
        return lambda content: random_projection(head.feature(content, own))
