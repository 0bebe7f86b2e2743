"""Context distillation (Snell et al., arXiv 2209.15189), stage by stage.

The teacher's gain, its targets, a student for each demonstration set, baselines, evaluation. Evaluation data
decides nothing here: the gain and the choice among students are measured on transfer examples.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeicl.distill import evaluate as methods
from edgeicl.distill.baselines import fine_tuned_predictions, untrained_predictions
from edgeicl.distill.gain import require_gain
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import PREDICTIONS, Predictor, write_predictions
from edgeicl.distill.preflight import check_models
from edgeicl.distill.result import DistillResult
from edgeicl.distill.student import MODEL, best_student, build_student, read_held_out_kl
from edgeicl.distill.task_data import TaskData, deal
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import (
    build_gain,
    build_targets,
    read_gain,
    read_targets,
    seed_name,
)
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.models.loading import load_model
from edgeicl.models.model_folder import model_folder, weights_digest
from edgeicl.specs.distillation import Teacher
from edgeicl.specs.manifest import Deviation
from edgeicl.store import CHECKPOINT, StageOutput, digest_of
from edgeicl.tasks.examples_digest import examples_digest

log = logging.getLogger(__name__)

GAIN_EXAMPLES = 512
"""Transfer examples that the teacher's gain is measured on; the rest are scored once it is known."""


class ContextDistillation:
    """The stages of method `context` on one task."""

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.recipe, self.settings = run.recipe, run.recipe.distill
        self.encoder = run.encoder
        self.asked = run.untrained_encoder
        self.over = self.settings.objective.over
        self.missing_baseline: tuple[Deviation, ...] = ()

    def distill(self) -> DistillResult:
        """Runs every stage that does not stand in the store."""
        alone, shown = self._longest_prompts()
        self.missing_baseline = check_models(
            self.teacher_folder,
            self.run.student_folder,
            self.encoder.tokens,
            over=self.over,
            query_tokens=alone,
            prompt_tokens=shown,
        )
        gain_output = self.run.stage("teacher-gain", self._gain_inputs(), self._build_gain)
        gain = read_gain(gain_output.path)
        if self.settings.require_gain:
            require_gain(gain)
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
        )
        return DistillResult(
            student=students[deployed].path / MODEL,
            digest=weights_digest(students[deployed].path / MODEL),
            evaluation=evaluation.model_copy(update={"gain_points": gain.points, "deployed_seed": deployed}),
            outputs=tuple(self.run.outputs),
            deviations=self.run.deviations + self.data.deviations + self.missing_baseline + diverged,
            source=self.run.student_folder,
        )

    @property
    def teacher(self) -> Teacher:
        assert self.settings.teacher is not None  # the schema sees to it
        return self.settings.teacher

    @cached_property
    def teacher_folder(self) -> Path:
        return model_folder(self.teacher.model, base_folder=self.run.base_folder)

    @cached_property
    def data(self) -> TaskData:
        shown = self.settings.demonstrations
        return deal(
            self.run.read(self.recipe.task.train),
            [example for examples in self.run.evaluation.values() for example in examples],
            pattern=self.recipe.task.pattern,
            labels=self.encoder.labels,
            demonstrations=shown.count,
            balanced=shown.balanced,
            demonstration_seeds=shown.seeds,
            transfer_examples=self.settings.transfer_examples,
            seed=self.recipe.seed,
            shown_from=self.run.demonstration_sources(),
            leakage=self.settings.leakage,
        )

    @cached_property
    def contexts(self) -> dict[str, list[int]]:
        """Tokens that stand before a query, by demonstration set."""
        return {
            seed_name(seed): self.asked.demonstrations(shown)
            for seed, shown in self.data.demonstrations.items()
        }

    @cached_property
    def queries(self) -> list[list[int]]:
        """Token ids of the examples that the teacher scores."""
        return self.asked.queries(self.data.scored)

    def _longest_prompts(self) -> tuple[int, int]:
        """Tokens of the longest prompt without demonstrations, and with them."""
        answer = max(map(len, self.encoder.tokens.values()))
        answer -= not self.asked.asks_channel  # a direct reader never reads the answer's last token
        query = max(self.run.predictor.longest_tokens, *map(len, self.queries)) + answer
        # Demonstrations are prompts themselves where the baseline is fine-tuned on them.
        shown = [example for examples in self.data.demonstrations.values() for example in examples]
        alone = max(query, *(len(row) + answer for row in self.encoder.queries(shown)))
        return len(self.encoder.leading) + alone, max(map(len, self.contexts.values())) + query

    def _gain_inputs(self) -> dict[str, Any]:
        return self.run.task_inputs() | {
            "teacher": weights_digest(self.teacher_folder),
            "load_in": self.teacher.load_in,
            "data": self.data.digest,
            # The prompts are the student's tokenizer's work, which the teacher's digest does not cover.
            "prompts": digest_of(
                [list(self.encoder.tokens.values()), self.encoder.leading, self.contexts, self.queries]
            ),
            "channel": self.asked.asks_channel,
            "over": self.over,
        }

    def _baseline_inputs(self, targets: StageOutput) -> dict[str, Any]:
        return {
            "targets": targets.digest,
            "student": self.run.student_digest,
            "evaluation": examples_digest(self.run.evaluation.items()),
            "training": self._training_inputs(),
            "epochs": self.settings.baseline_epochs,
            "seed": self.recipe.seed,
        }

    def _training_inputs(self) -> dict[str, Any]:
        # How often a checkpoint is written changes nothing in the result.
        return self.settings.training.model_dump(mode="json", exclude={"checkpoint_every_steps"})

    def _build_gain(self, folder: Path) -> None:
        if self.run.writes:
            build_gain(
                folder,
                self._teacher(),
                self.asked,
                self.data.scored[:GAIN_EXAMPLES],
                contexts=self.contexts,
                over=self.over,
            )

    def _build_targets(self, folder: Path, gain: StageOutput) -> None:
        if self.run.writes:
            build_targets(
                folder,
                self._teacher,
                self.asked,
                self.data.scored,
                contexts=self.contexts,
                over=self.over,
                gain_folder=gain.path,
            )

    def _student(self, seed: int, targets: StageOutput) -> StageOutput:
        objective = self.settings.objective
        inputs = {
            "targets": targets.digest,
            "student": self.run.student_digest,
            "demonstration_seed": seed,
            "objective": objective.model_dump(mode="json"),
            "training": self._training_inputs(),
            "seed": self.recipe.seed,
        }

        def build(folder: Path) -> None:
            build_student(
                folder,
                self.run.student_folder,
                self.encoder,
                transfer=self.data.transfer,
                held_out=self.data.held_out,
                targets=read_targets(targets.path)[seed_name(seed)],
                over=objective.over,
                kl=objective.kl,
                ce=objective.ce,
                temperature=objective.temperature,
                settings=self._training(self.settings.training.epochs),
                seed=self.recipe.seed,
                device=self.run.device,
                is_writer=self.run.writes,
                description=f"distilling, {seed_name(seed)}",
                score=self.recipe.task.score,
            )

        return self.run.stage("student", inputs, build, name=f"student of {seed_name(seed)}")

    def _build_baselines(self, folder: Path) -> None:
        kept = folder / CHECKPOINT
        found = fine_tuned_predictions(
            lambda: self.run.label_reader(self.run.student_folder),
            self.run.predictor,
            {seed_name(seed): shown for seed, shown in self.data.demonstrations.items()},
            settings=self._training(self.settings.baseline_epochs),
            seed=self.recipe.seed,
            kept=kept,
            is_writer=self.run.writes,
        )
        if not self.run.writes:
            return
        untrained = Predictor(self.asked, self.run.evaluation)
        found |= untrained_predictions(
            self.run.label_reader(self.run.student_folder),
            untrained,
            zero_shot=methods.ZERO_SHOT_STUDENT,
            in_context=methods.IN_CONTEXT_STUDENT,
            contexts={} if self.missing_baseline else self.contexts,
            kept=kept,
        )
        found |= untrained_predictions(
            self._teacher(),
            untrained,
            zero_shot=methods.ZERO_SHOT_TEACHER,
            in_context=methods.IN_CONTEXT_TEACHER,
            contexts=self.contexts,
            kept=kept,
        )
        write_predictions(folder / PREDICTIONS, found)

    def _teacher(self) -> LabelReader:
        model = load_model(self.teacher_folder, self.teacher.load_in, device=self.run.device)
        return LabelReader(model, score=self.recipe.task.score)

    def _training(self, epochs: int) -> TrainingSettings:
        return TrainingSettings(**self.settings.training.model_dump() | {"epochs": epochs})
