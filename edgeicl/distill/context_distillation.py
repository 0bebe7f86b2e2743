"""Context distillation (Snell et al., arXiv 2209.15189), stage by stage.

The teacher's gain, its targets, a student for each demonstration set, baselines, evaluation. Evaluation data
decides nothing here: the gain and the choice among students are measured on transfer examples.
"""

from __future__ import annotations

import logging
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.distill import evaluate as methods
from edgeicl.distill.adapter import check_adapter
from edgeicl.distill.baselines import fine_tuned_predictions, untrained_predictions
from edgeicl.distill.demonstration_sets import averaged, set_seeds, sources_of_sets
from edgeicl.distill.gain import require_gain
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.on_policy import on_policy_loss
from edgeicl.distill.predictions import PREDICTIONS, write_predictions
from edgeicl.distill.preflight import check_models
from edgeicl.distill.result import DistillResult
from edgeicl.distill.scoring import scoring_size
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
from edgeicl.distill.text_modelling import BLOCK_TOKENS, text_loss
from edgeicl.distill.trainer import Loss, TrainingSettings
from edgeicl.models.loading import config_number, load_tokenizer
from edgeicl.models.memory import Scoring
from edgeicl.models.model_folder import model_folder, weights_digest
from edgeicl.specs.distillation import Teacher
from edgeicl.specs.manifest import Deviation
from edgeicl.store import CHECKPOINT, StageOutput, digest_of
from edgeicl.tasks.example import Example
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.text_blocks import text_blocks
from edgeicl.tasks.text_source import read_texts

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
        shown = self.settings.demonstrations
        self.sets = set_seeds(shown.seeds, shown.sets_per_student)
        self.missing_baseline: tuple[Deviation, ...] = ()

    def distill(self) -> DistillResult:
        """Runs every stage that does not stand in the store."""
        self.check()
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
            baseline_runs=tuple(self.contexts),
        )
        return DistillResult(
            student=students[deployed].path / MODEL,
            digest=weights_digest(students[deployed].path / MODEL),
            evaluation=evaluation.model_copy(update={"gain_points": gain.points, "deployed_seed": deployed}),
            outputs=tuple(self.run.outputs),
            deviations=self.run.deviations + self.data.deviations + self.missing_baseline + diverged,
            source=self.run.student_folder,
        )

    def check(self) -> None:
        """What must hold between models, data and task.

        Raises:
            DataError: it does not; nothing has been worked on.
        """
        student = self.settings.student
        check_adapter(self.run.student_folder, student.adapter, target_modules=student.lora.target_modules)
        alone, shown = self._longest_prompts()
        self.missing_baseline = check_models(
            self.teacher_folder,
            self.run.student_folder,
            self.encoder.tokens,
            over=self.over,
            same_head=self.over == "vocabulary" or self.settings.objective.on_policy > 0,
            query_tokens=alone,
            prompt_tokens=shown,
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
            demonstration_seeds=[seed for sets in self.sets.values() for seed in sets.values()],
            transfer_examples=self.settings.transfer_examples,
            seed=self.recipe.seed,
            shown_from=sources_of_sets(self.sets, self.run.demonstration_sources()),
            leakage=self.settings.leakage,
        )

    @cached_property
    def contexts(self) -> dict[str, list[int]]:
        """Tokens that stand before a query, by demonstration set."""
        return {
            name: self.asked.demonstrations(self.data.demonstrations[seed])
            for sets in self.sets.values()
            for name, seed in sets.items()
        }

    @cached_property
    def shown_to_students(self) -> dict[str, list[Example]]:
        """All the examples that the teacher of each student sees."""
        shown = self.data.demonstrations
        return {
            seed_name(student): [example for seed in sets.values() for example in shown[seed]]
            for student, sets in self.sets.items()
        }

    @cached_property
    def text(self) -> NDArray[np.int64] | None:
        """Blocks of plain text as token ids, where the objective models language."""
        if not self.settings.objective.lm:
            return None
        assert self.settings.text is not None  # the schema sees to it
        return text_blocks(
            load_tokenizer(self.run.student_folder),
            read_texts(self.settings.text, base_folder=self.run.base_folder),
            block_tokens=min(BLOCK_TOKENS, config_number(self.run.student_folder, "max_position_embeddings")),
        )

    @cached_property
    def queries(self) -> list[list[int]]:
        """Token ids of the examples that the teacher scores."""
        return self.asked.queries(self.data.scored)

    def _longest_prompts(self) -> tuple[int, int]:
        """Tokens of the longest prompt without demonstrations, and with them."""
        sampled = self.settings.on_policy.tokens if self.settings.objective.on_policy else 0
        # A direct reader never reads the answer's last token.
        answer = max(*map(len, self.encoder.tokens.values()), sampled) - (not self.asked.asks_channel)
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
            "over": self.over,
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
            self.teacher_reader,
            self.asked,
            self.data.scored[:GAIN_EXAMPLES],
            contexts=self.contexts,
            over=self.over,
            workers=self.run.workers,
        )

    def _build_targets(self, folder: Path, gain: StageOutput) -> None:
        build_targets(
            folder,
            self.teacher_reader,
            self.asked,
            self.data.scored,
            contexts=self.contexts,
            over=self.over,
            gain_folder=gain.path,
            workers=self.run.workers,
        )

    def _student(self, seed: int, targets: StageOutput) -> StageOutput:
        objective, adapter = self.settings.objective, self.settings.student
        inputs = {
            "targets": targets.digest,
            "student": self.run.student_digest,
            "demonstration_sets": self.sets[seed],
            "objective": objective.model_dump(mode="json"),
            "on_policy": self.settings.on_policy.model_dump(mode="json") if objective.on_policy else None,
            "text": None if self.text is None else digest_of(self.text.tolist()),
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
                transfer=self.data.transfer,
                held_out=self.data.held_out,
                targets=averaged([of_sets[name] for name in self.sets[seed]]),
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
        if self.text is not None:
            terms.append(
                text_loss(self.text, weight=objective.lm, seed=self.recipe.seed, device=student.device)
            )
        if objective.on_policy:
            terms.append(
                on_policy_loss(
                    student,
                    self.teacher_reader(),
                    queries=self.queries[: len(self.data.transfer)],
                    leading=self.encoder.leading,
                    contexts=[self.contexts[name] for name in self.sets[seed]],
                    tokens=self.settings.on_policy.tokens,
                    temperature=self.settings.on_policy.temperature,
                    end_token=student.model.config.eos_token_id,
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
            self.shown_to_students,
            settings=self._training(self.settings.baseline_epochs),
            seed=self.recipe.seed,
            kept=kept,
            workers=workers,
        )
        ask = partial(untrained_predictions, predictor=self.run.untrained_predictor, kept=kept, workers=workers)
        found |= ask(
            self.run.label_reader(self.run.student_folder),
            zero_shot=methods.ZERO_SHOT_STUDENT,
            in_context=methods.IN_CONTEXT_STUDENT,
            contexts={} if self.missing_baseline else self.contexts,
        )
        found |= ask(
            self.teacher_reader(),
            zero_shot=methods.ZERO_SHOT_TEACHER,
            in_context=methods.IN_CONTEXT_TEACHER,
            contexts=self.contexts,
        )
        if self.run.writes:
            write_predictions(folder / PREDICTIONS, found)

    def teacher_reader(self) -> LabelReader:
        """The teacher, once it is known to fit in memory with what it scores."""
        return self.run.teacher_reader(self.teacher_folder, self.teacher.load_in, scoring=self.scoring_size())

    def scoring_size(self) -> Scoring:
        """The largest that goes through the teacher at once."""
        return scoring_size(
            [*self.queries, *self.run.predictor.queries],
            list(self.encoder.tokens.values()),
            before=max(self.contexts.values(), key=len),
            over=self.over,
            device_type=self.run.device.type,
            every_token=self.asked.asks_channel,
        )

    def _training(self, epochs: int) -> TrainingSettings:
        return TrainingSettings(**self.settings.training.model_dump() | {"epochs": epochs})
