"""Context distillation (Snell et al., arXiv 2209.15189), stage by stage.

The teacher's gain, its targets, a student for each demonstration set, baselines, evaluation. Evaluation data
decides nothing here: the gain and the choice among students are measured on transfer examples.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from edgeicl.distill import evaluate as methods
from edgeicl.distill.baselines import fine_tuned_predictions, untrained_predictions
from edgeicl.distill.context_task import ContextTask
from edgeicl.distill.demonstration_sets import averaged
from edgeicl.distill.gain import certain_gain
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.on_policy import end_tokens, on_policy_loss
from edgeicl.distill.predictions import PREDICTIONS, write_predictions
from edgeicl.distill.result import DistillResult
from edgeicl.distill.student import MODEL, best_student, build_student, read_held_out_kl
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import (
    GAIN_EXAMPLES,
    build_gain,
    build_targets,
    read_gain,
    read_targets,
    seed_name,
)
from edgeicl.distill.text_modelling import text_loss
from edgeicl.distill.trainer import Loss
from edgeicl.models.model_folder import weights_digest
from edgeicl.specs.manifest import Deviation
from edgeicl.store import CHECKPOINT, StageOutput, digest_of
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.label_targets import LabelTargets

log = logging.getLogger(__name__)


class ContextDistillation:
    """The stages of method `context` on one task."""

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.recipe, self.settings = run.recipe, run.recipe.distill
        self.encoder = run.encoder
        self.task = ContextTask(run)
        self.missing_baseline: tuple[Deviation, ...] = ()

    def distill(self) -> DistillResult:
        """Runs every stage that does not stand in the store."""
        self.missing_baseline = self.task.check()
        gain_output = self.run.stage("teacher-gain", self._gain_inputs(), self._build_gain)
        gain = read_gain(gain_output.path)
        certain = certain_gain(gain, required=self.settings.require_gain)
        targets = self.run.stage(
            "teacher-targets",
            {"gain": gain_output.digest},
            lambda folder: self._build_targets(folder, gain_output),
        )
        students = {seed: self._student(seed, targets) for seed in self.settings.demonstrations.seeds}
        divergences = {seed: read_held_out_kl(output.path) for seed, output in students.items()}
        deployed, diverged = best_student(divergences)
        told = ", ".join(f"{kl:.3g} (seed {seed})" for seed, kl in divergences.items())
        log.info("held-out KL to the teacher: %s; the student of seed %d is deployed", told, deployed)
        baselines = self.run.stage("baselines", self._baseline_inputs(targets), self._build_baselines)
        evaluation = self.run.evaluate(
            {seed_name(seed): output for seed, output in students.items()},
            methods.CONTEXT_DISTILLATION,
            baselines=baselines,
            baseline_runs=tuple(self.task.contexts),
        )
        return DistillResult(
            student=students[deployed].path / MODEL,
            digest=weights_digest(students[deployed].path / MODEL),
            evaluation=evaluation.model_copy(
                update={"gain_points": gain.points, "gain_certain": certain, "deployed_seed": deployed}
            ),
            outputs=tuple(self.run.outputs),
            deviations=self.run.deviations + self.task.data.deviations + self.missing_baseline + diverged,
            source=self.run.student_folder,
            targets=None if self.recipe.quantize.recover is None else self._label_targets(deployed, targets),
        )

    def _label_targets(self, seed: int, targets: StageOutput) -> LabelTargets:
        """What the student of `seed` was taught."""
        sets, of_sets = self.task.sets[seed], read_targets(targets.path)
        return LabelTargets(
            rows=self.encoder.prompts(self.task.data.scored),
            log_probabilities=averaged([of_sets[name] for name in sets]),
            over=self.task.over,
            digest=digest_of([targets.digest, sets]),
        )

    def _gain_inputs(self) -> dict[str, Any]:
        return self.run.task_inputs() | {
            "teacher": weights_digest(self.run.teacher_folder),
            "load_in": self.run.teacher.load_in,
            "data": self.task.data.digest,
            # The prompts are the student's tokenizer's work, which the teacher's digest does not cover.
            "prompts": digest_of(
                [
                    list(self.encoder.tokens.values()),
                    self.encoder.leading,
                    self.task.contexts,
                    self.task.queries,
                ]
            ),
            "over": self.task.over,
        }

    def _baseline_inputs(self, targets: StageOutput) -> dict[str, Any]:
        return {
            "targets": targets.digest,
            "student": self.run.student_digest,
            "evaluation": examples_digest(self.run.evaluation.items()),
            "training": self.settings.training.deciding(),
            "epochs": self.settings.baseline_epochs,
            "seed": self.recipe.seed,
        }

    def _build_gain(self, folder: Path) -> None:
        build_gain(
            folder,
            self.task.teacher_reader,
            self.task.asked,
            self.task.data.scored[:GAIN_EXAMPLES],
            contexts=self.task.contexts,
            over=self.task.over,
            workers=self.run.workers,
        )

    def _build_targets(self, folder: Path, gain: StageOutput) -> None:
        build_targets(
            folder,
            self.task.teacher_reader,
            self.task.asked,
            self.task.data.scored,
            contexts=self.task.contexts,
            over=self.task.over,
            gain_folder=gain.path,
            workers=self.run.workers,
        )

    def _student(self, seed: int, targets: StageOutput) -> StageOutput:
        objective, adapter = self.settings.objective, self.settings.student
        inputs = {
            "targets": targets.digest,
            "student": self.run.student_digest,
            "demonstration_sets": self.task.sets[seed],
            "objective": objective.model_dump(mode="json"),
            "on_policy": self.settings.on_policy.model_dump(mode="json") if objective.on_policy else None,
            "text": None if self.task.text is None else digest_of(self.task.text.tolist()),
            "adapter": [adapter.adapter, adapter.lora.model_dump(mode="json")],
            "training": self.settings.training.deciding(),
            "seed": self.recipe.seed,
        }

        def build(folder: Path) -> None:
            of_sets = read_targets(targets.path)
            build_student(
                folder,
                self.run.student_folder,
                self.encoder,
                transfer=self.task.data.transfer,
                held_out=self.task.data.held_out,
                targets=averaged([of_sets[name] for name in self.task.sets[seed]]),
                over=objective.over,
                kl=objective.kl,
                ce=objective.ce,
                temperature=objective.temperature,
                settings=self.run.training(),
                seed=self.recipe.seed,
                device=self.run.device,
                is_writer=self.run.writes,
                description=f"distilling, {seed_name(seed)}",
                score=self.recipe.task.score,
                adapter=adapter.adapter,
                rank=adapter.lora.rank,
                alpha=adapter.lora.alpha,
                target_modules=adapter.lora.target_modules,
                further_terms=lambda student: self._further_terms(student, seed),
            )

        return self.run.stage("student", inputs, build, name=f"student of {seed_name(seed)}")

    def _further_terms(self, student: LabelReader, seed: int) -> list[Loss]:
        """What the objective asks for beside the teacher's targets; on-policy, the teacher itself is loaded."""
        objective, terms = self.settings.objective, []
        if self.task.text is not None:
            terms.append(
                text_loss(self.task.text, weight=objective.lm, seed=self.recipe.seed, device=student.device)
            )
        if objective.on_policy:
            terms.append(
                on_policy_loss(
                    student,
                    self.task.teacher_reader(),
                    queries=self.task.queries[: len(self.task.data.transfer)],
                    leading=self.encoder.leading,
                    contexts=[self.task.contexts[name] for name in self.task.sets[seed]],
                    tokens=self.settings.on_policy.tokens,
                    temperature=self.settings.on_policy.temperature,
                    end_tokens=end_tokens(student.model.config.eos_token_id),
                    weight=objective.on_policy,
                    seed=self.recipe.seed,
                )
            )
        return terms

    def _build_baselines(self, folder: Path) -> None:
        kept, workers = folder / CHECKPOINT, self.run.workers
        found = fine_tuned_predictions(
            lambda: self.run.label_reader(self.run.student_folder),
            self.run.predictor,
            self.task.shown_to_students,
            settings=self.run.training(epochs=self.settings.baseline_epochs),
            seed=self.recipe.seed,
            kept=kept,
            workers=workers,
        )
        ask = partial(untrained_predictions, predictor=self.run.untrained_predictor, kept=kept, workers=workers)
        found |= ask(
            self.run.label_reader(self.run.student_folder),
            zero_shot=methods.ZERO_SHOT_STUDENT,
            in_context=methods.IN_CONTEXT_STUDENT,
            contexts={} if self.missing_baseline else self.task.contexts,
        )
        found |= ask(
            self.task.teacher_reader(),
            zero_shot=methods.ZERO_SHOT_TEACHER,
            in_context=methods.IN_CONTEXT_TEACHER,
            contexts=self.task.contexts,
        )
        if self.run.writes:
            write_predictions(folder / PREDICTIONS, found)
