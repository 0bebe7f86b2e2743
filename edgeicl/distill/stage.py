"""The recipe layer, from a recipe to a student: gain, targets, students, baselines, evaluation.

Each is a stage of the store, so a killed run goes on at the last finished one, and inside training at the
last checkpoint. Evaluation data decides nothing here: the gain and the choice among students are measured
on transfer examples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from edgeicl.distill import evaluate as methods
from edgeicl.distill.baselines import fine_tuned_predictions, untrained_predictions
from edgeicl.distill.evaluate import DataName
from edgeicl.distill.gain import require_gain
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import (
    PREDICTIONS,
    Predictor,
    accuracy_rows,
    read_predictions,
    write_predictions,
)
from edgeicl.distill.preflight import check_models
from edgeicl.distill.student import MODEL, build_student, read_held_out_kl
from edgeicl.distill.task_data import TaskData, deal, examples_digest
from edgeicl.distill.teacher_targets import (
    build_gain,
    build_targets,
    read_gain,
    read_targets,
    seed_name,
)
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.models.loading import load_model, load_tokenizer, save_model
from edgeicl.models.model_folder import model_folder, weights_digest
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.measurement import Evaluation
from edgeicl.specs.recipe import Recipe, Source, Teacher
from edgeicl.store import StageOutput, Store
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder
from edgeicl.tasks.readers import read_examples

log = logging.getLogger(__name__)

GAIN_EXAMPLES = 512
"""Transfer examples that the teacher's gain is measured on; the rest are scored once it is known."""


@dataclass(frozen=True)
class DistillResult:
    """The student to compile (a folder in the hub's layout), and all that was found out on the way."""

    student: Path
    digest: str
    evaluation: Evaluation
    outputs: tuple[tuple[str, StageOutput], ...]
    deviations: tuple[Deviation, ...] = ()


def distill(recipe: Recipe, *, store: Store, base_folder: Path) -> DistillResult:
    """Runs the recipe layer. Under `accelerate launch` every process calls it.

    Raises:
        DataError: data or models that are missing or don't fit together; found before anything is trained.
        GainError: the teacher gains nothing from demonstrations, unless `distill.require_gain` is off.
    """
    run = _Run(recipe, store, base_folder)
    return run.copy() if recipe.distill.method == "none" else run.distill()


class _Run:
    """One recipe's data and stages. Models are loaded only by stages that have to be built."""

    def __init__(self, recipe: Recipe, store: Store, base_folder: Path) -> None:
        self.recipe = recipe
        self.store = store
        self.base_folder = base_folder
        self.outputs: list[tuple[str, StageOutput]] = []
        self.missing_baseline: tuple[Deviation, ...] = ()
        self.student_folder = model_folder(recipe.distill.student.model, base_folder=base_folder)
        self.student_digest = weights_digest(self.student_folder)
        self.over, task = recipe.distill.objective.over, recipe.task
        self.encoder = PromptEncoder(
            load_tokenizer(self.student_folder),
            pattern=task.pattern,
            verbalizers=task.verbalizers,
            separator=task.separator,
        )
        self.evaluation: dict[DataName, list[Example]] = {"in_domain": self._read(task.in_domain)}
        if task.out_of_domain:
            self.evaluation["out_of_domain"] = self._read(task.out_of_domain)
        self.predictor = Predictor(self.encoder, self.evaluation)

    def copy(self) -> DistillResult:
        """Method `none`: the student as it is."""
        student = self._stage("student", {"weights": self.student_digest}, self._build_copy)
        evaluated = self._evaluate({"only": student}, methods.ZERO_SHOT_STUDENT, baselines=None)
        return DistillResult(student.path / MODEL, student.digest, evaluated, tuple(self.outputs))

    def distill(self) -> DistillResult:
        """Method `context`."""
        self.missing_baseline = check_models(
            self.teacher_folder,
            self.student_folder,
            self.encoder.tokens,
            over=self.over,
            prompt_tokens=self._longest_prompt(),
        )
        gain_output = self._stage("teacher-gain", self._gain_inputs(), self._build_gain)
        gain = read_gain(gain_output.path)
        if self.recipe.distill.require_gain:
            require_gain(gain)
        targets = self._stage(
            "teacher-targets",
            {"gain": gain_output.digest},
            lambda folder: self._build_targets(folder, gain_output),
        )
        students = {seed: self._student(seed, targets) for seed in self.recipe.distill.demonstrations.seeds}
        divergences = {seed: read_held_out_kl(output.path) for seed, output in students.items()}
        deployed = min(students, key=lambda seed: (divergences[seed], seed))
        log.info("held-out KL by demonstration seed %s: seed %d is deployed", divergences, deployed)
        baselines = self._stage("baselines", self._baseline_inputs(targets), self._build_baselines)
        evaluation = self._evaluate(
            {seed_name(seed): output for seed, output in students.items()},
            methods.CONTEXT_DISTILLATION,
            baselines=baselines,
        )
        return DistillResult(
            student=students[deployed].path / MODEL,
            digest=students[deployed].digest,
            evaluation=evaluation.model_copy(update={"gain_points": gain.points, "deployed_seed": deployed}),
            outputs=tuple(self.outputs),
            deviations=self.data.deviations + self.missing_baseline,
        )

    @property
    def teacher(self) -> Teacher:
        assert self.recipe.distill.teacher is not None  # the schema sees to it
        return self.recipe.distill.teacher

    @cached_property
    def teacher_folder(self) -> Path:
        return model_folder(self.teacher.model, base_folder=self.base_folder)

    @cached_property
    def data(self) -> TaskData:
        settings = self.recipe.distill
        return deal(
            self._read(self.recipe.task.train),
            [example for examples in self.evaluation.values() for example in examples],
            pattern=self.recipe.task.pattern,
            labels=self.encoder.labels,
            demonstrations=settings.demonstrations.count,
            balanced=settings.demonstrations.balanced,
            demonstration_seeds=settings.demonstrations.seeds,
            transfer_examples=settings.transfer_examples,
            seed=self.recipe.seed,
        )

    @cached_property
    def contexts(self) -> dict[str, list[int]]:
        """Tokens that stand before a query, by demonstration set."""
        return {
            seed_name(seed): self.encoder.demonstrations(shown)
            for seed, shown in self.data.demonstrations.items()
        }

    def _longest_prompt(self) -> int:
        queries = self.encoder.queries(self.data.scored)
        longest = max(self.predictor.longest_tokens, *map(len, queries))
        return max(map(len, self.contexts.values())) + longest + max(map(len, self.encoder.tokens.values())) - 1

    def _gain_inputs(self) -> dict[str, Any]:
        return self._task_inputs() | {
            "teacher": weights_digest(self.teacher_folder),
            "load_in": self.teacher.load_in,
            "data": self.data.digest,
            "over": self.over,
        }

    def _task_inputs(self) -> dict[str, Any]:
        task = self.recipe.task
        # A list, because the order of the labels is the order of the scores.
        return {
            "pattern": task.pattern,
            "verbalizers": list(task.verbalizers.items()),
            "separator": task.separator,
        }

    def _baseline_inputs(self, targets: StageOutput) -> dict[str, Any]:
        return {
            "targets": targets.digest,
            "student": self.student_digest,
            "evaluation": examples_digest(self.evaluation.items()),
            "training": self._training_inputs(),
            "epochs": self.recipe.distill.baseline_epochs,
            "seed": self.recipe.seed,
        }

    def _training_inputs(self) -> dict[str, Any]:
        # How often a checkpoint is written changes nothing in the result.
        return self.recipe.distill.training.model_dump(mode="json", exclude={"checkpoint_every_steps"})

    def _build_copy(self, folder: Path) -> None:
        if self._writes:
            save_model(load_model(self.student_folder), self.student_folder, folder / MODEL)

    def _build_gain(self, folder: Path) -> None:
        if self._writes:
            build_gain(
                folder,
                self._teacher(),
                self.encoder,
                self.data.scored[:GAIN_EXAMPLES],
                contexts=self.contexts,
                over=self.over,
            )

    def _build_targets(self, folder: Path, gain: StageOutput) -> None:
        if self._writes:
            build_targets(
                folder,
                self._teacher,
                self.encoder,
                self.data.scored,
                contexts=self.contexts,
                over=self.over,
                gain_folder=gain.path,
            )

    def _student(self, seed: int, targets: StageOutput) -> StageOutput:
        objective = self.recipe.distill.objective
        inputs = {
            "targets": targets.digest,
            "student": self.student_digest,
            "demonstration_seed": seed,
            "objective": objective.model_dump(mode="json"),
            "training": self._training_inputs(),
            "seed": self.recipe.seed,
        }

        def build(folder: Path) -> None:
            build_student(
                folder,
                self.student_folder,
                self.encoder,
                transfer=self.data.transfer,
                held_out=self.data.held_out,
                targets=read_targets(targets.path)[seed_name(seed)],
                over=objective.over,
                kl=objective.kl,
                ce=objective.ce,
                temperature=objective.temperature,
                settings=self._training(self.recipe.distill.training.epochs),
                seed=self.recipe.seed,
                device=self._device,
                is_writer=self._writes,
            )

        return self._stage("student", inputs, build, name=f"student of {seed_name(seed)}")

    def _build_baselines(self, folder: Path) -> None:
        kept = folder / "checkpoint"
        found = fine_tuned_predictions(
            lambda: self._reader(self.student_folder),
            self.predictor,
            {seed_name(seed): shown for seed, shown in self.data.demonstrations.items()},
            settings=self._training(self.recipe.distill.baseline_epochs),
            seed=self.recipe.seed,
            kept=kept,
            is_writer=self._writes,
        )
        if not self._writes:
            return
        found |= untrained_predictions(
            self._reader(self.student_folder),
            self.predictor,
            zero_shot=methods.ZERO_SHOT_STUDENT,
            in_context=methods.IN_CONTEXT_STUDENT,
            contexts={} if self.missing_baseline else self.contexts,
            kept=kept,
        )
        found |= untrained_predictions(
            self._teacher(),
            self.predictor,
            zero_shot=methods.ZERO_SHOT_TEACHER,
            in_context=methods.IN_CONTEXT_TEACHER,
            contexts=self.contexts,
            kept=kept,
        )
        write_predictions(folder / PREDICTIONS, found)

    def _evaluate(
        self, students: Mapping[str, StageOutput], method: str, *, baselines: StageOutput | None
    ) -> Evaluation:
        """The accuracy table of `students` (by demonstration set) and of the baselines."""

        def build(folder: Path) -> None:
            if not self._writes:
                return
            found = read_predictions(baselines.path / PREDICTIONS) if baselines else {}
            for name, output in students.items():
                reader = self._reader(output.path / MODEL)
                found |= self.predictor.predict(reader, method, name, self.encoder.leading)
            write_predictions(folder / PREDICTIONS, found)

        inputs = self._task_inputs() | {
            "students": {name: output.digest for name, output in students.items()},
            "baselines": baselines and baselines.digest,
            "evaluation": examples_digest(self.evaluation.items()),
        }
        predictions = read_predictions(self._stage("evaluation", inputs, build).path / PREDICTIONS)
        return Evaluation(rows=accuracy_rows(methods.TABLE_ORDER, predictions, self.evaluation, self.encoder))

    def _stage(
        self, stage: str, inputs: Mapping[str, Any], build: Callable[[Path], None], *, name: str = ""
    ) -> StageOutput:
        output = self.store.run(stage, inputs, build)
        self.outputs.append((name or stage, output))
        return output

    @property
    def _writes(self) -> bool:
        return self.store.workers.is_writer

    @property
    def _device(self) -> torch.device:
        return torch.device(PartialState().device)

    def _teacher(self) -> LabelReader:
        return LabelReader(load_model(self.teacher_folder, self.teacher.load_in, device=self._device))

    def _reader(self, folder: Path) -> LabelReader:
        return LabelReader(load_model(folder, device=self._device))

    def _read(self, source: Source) -> list[Example]:
        return read_examples(source, labels=self.encoder.labels, base_folder=self.base_folder)

    def _training(self, epochs: int) -> TrainingSettings:
        return TrainingSettings(**self.recipe.distill.training.model_dump() | {"epochs": epochs})
