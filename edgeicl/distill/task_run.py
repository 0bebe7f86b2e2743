"""What every method works on: the task's data, the student, the store's stages, and the evaluation."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from edgeicl.distill.accuracy_table import accuracy_table
from edgeicl.distill.compilable import compilable
from edgeicl.distill.evaluate import DataName, require_every_label
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import (
    ONLY,
    PREDICTIONS,
    Predictions,
    Predictor,
    read_predictions,
    write_predictions,
)
from edgeicl.distill.student import MODEL
from edgeicl.distill.task_data import TaskData, deal
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.errors import DataError
from edgeicl.models.loading import load_model, load_tokenizer, save_model
from edgeicl.models.memory import LoadIn, Scoring, available_bytes, check_memory
from edgeicl.models.model_folder import model_folder, weights_digest
from edgeicl.specs.distillation import Teacher
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.measurement import Evaluation
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.source import Source
from edgeicl.specs.tuning_task import TuningTask
from edgeicl.store import CHECKPOINT, StageOutput, Store, Workers
from edgeicl.tasks.example import Example
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.prompt import ChannelEncoder, PromptEncoder
from edgeicl.tasks.readers import read_examples
from edgeicl.tasks.text_leakage import without_evaluated
from edgeicl.tasks.text_source import read_texts
from edgeicl.tasks.verbalizer import label_columns

log = logging.getLogger(__name__)


class TaskRun:
    """One recipe's task, student and stages. Models are loaded only by stages that have to be built."""

    def __init__(self, recipe: Recipe, store: Store, base_folder: Path) -> None:
        self.recipe = recipe
        self.store = store
        self.base_folder = base_folder
        self.outputs: list[tuple[str, StageOutput]] = []
        self.student_folder = model_folder(recipe.distill.student.model, base_folder=base_folder)
        self.student_digest = weights_digest(self.student_folder)
        compilable(recipe, self.student_folder)
        task = recipe.task
        self.tokenizer = load_tokenizer(self.student_folder)
        self.encoder = PromptEncoder(
            self.tokenizer,
            pattern=task.pattern,
            verbalizers=task.verbalizers,
            separator=task.separator,
        )
        if recipe.emit.head == "verbalizers":
            label_columns(self.encoder.tokens)
        lengths = {label: len(tokens) for label, tokens in self.encoder.tokens.items()}
        if len(set(lengths.values())) > 1:
            log.warning(
                "task.verbalizers become %s tokens: a longer one is less likely for that alone; expected words "
                "of one length (most tokenizers have ' Yes' as one token, and 'Yes' as others)",
                " and ".join(f"{count} ({label})" for label, count in lengths.items()),
            )
        self.evaluation: dict[DataName, list[Example]] = {"in_domain": self.read(task.in_domain)}
        if task.out_of_domain:
            self.evaluation["out_of_domain"] = self.read(task.out_of_domain)
        if task.label_pattern is None:
            for data, examples in self.evaluation.items():
                require_every_label(data, examples, self.encoder.labels)
        self.predictor = Predictor(self.encoder, self.evaluation)
        self._documents_left_out: tuple[Deviation, ...] = ()

    @property
    def untrained_encoder(self) -> PromptEncoder:
        """How models are asked that are neither trained here nor deployed: see `Task.scoring`."""
        task = self.recipe.task
        if task.scoring == "direct":
            return self.encoder
        return ChannelEncoder(
            self.tokenizer,
            pattern=task.channel_pattern or task.pattern,
            verbalizers=task.verbalizers,
            separator=task.separator,
        )

    @cached_property
    def untrained_predictor(self) -> Predictor:
        """Asks them on all evaluation data."""
        return Predictor(self.untrained_encoder, self.evaluation)

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """What the task asks for and models that answer in one pass can't give, and text left out."""
        found = []
        if self.recipe.task.scoring == "channel":
            found.append(
                Deviation(
                    what="scoring",
                    where="fine-tuning, the student and the artifact",
                    asked="channel",
                    got="direct",
                    why="what is deployed reads the label after the text, in one pass",
                )
            )
        if any(example.options for examples in self.evaluation.values() for example in examples):
            found.append(
                Deviation(
                    what="options",
                    where="training and the artifact's check",
                    asked="an answer among a row's own options",
                    got="an answer among all labels",
                    why="only the accuracy table tells options apart",
                )
            )
        return (*found, *self._documents_left_out)

    def stage(
        self, stage: str, inputs: Mapping[str, Any], build: Callable[[Path], None], *, name: str = ""
    ) -> StageOutput:
        """The stage's output, built unless it stands in the store; listed as `name` among the outputs."""
        output = self.store.run(stage, inputs, build)
        self.outputs.append((name or stage, output))
        return output

    def task_inputs(self) -> dict[str, Any]:
        """What of the task decides how examples are written and scored."""
        task = self.recipe.task
        # A list, because the order of the labels is the order of the scores.
        return {
            "pattern": task.pattern,
            "verbalizers": list(task.verbalizers.items()),
            "separator": task.separator,
            "score": task.score,
        }

    def evaluate(
        self,
        students: Mapping[str, StageOutput],
        method: str,
        *,
        baselines: StageOutput | None,
        baseline_runs: Sequence[str] = (),
    ) -> Evaluation:
        """The accuracy table of `students` and of the baselines, by run.

        `baseline_runs` are those of baselines that no student has.
        """

        def build(folder: Path) -> None:
            found = read_predictions(baselines.path / PREDICTIONS) if baselines else {}
            for name, output in students.items():
                reader = self.label_reader(output.path / MODEL)
                found |= self.predictor.predict(
                    reader,
                    method,
                    name,
                    self.encoder.leading,
                    kept=folder / CHECKPOINT,
                    workers=self.workers,
                )
            if self.writes:
                write_predictions(folder / PREDICTIONS, found)

        inputs = self.task_inputs() | {
            "students": {name: output.digest for name, output in students.items()},
            "baselines": baselines and baselines.digest,
            "evaluation": examples_digest(self.evaluation.items()),
        }
        predictions = read_predictions(self.stage("evaluation", inputs, build).path / PREDICTIONS)
        runs = tuple(dict.fromkeys((ONLY, *students, *baseline_runs)))
        return self.table(method, predictions, runs=runs)

    def table(self, method: str, predictions: Predictions, *, runs: Sequence[str]) -> Evaluation:
        """The accuracy table of `predictions`, with `method` tested against every other."""
        return accuracy_table(method, predictions, self.evaluation, self.encoder, runs=runs)

    @property
    def teacher(self) -> Teacher:
        """For methods that have one, which the schema sees to."""
        assert self.recipe.distill.teacher is not None
        return self.recipe.distill.teacher

    @cached_property
    def teacher_folder(self) -> Path:
        return model_folder(self.teacher.model, base_folder=self.base_folder)

    def training(self, **changed: Any) -> TrainingSettings:
        """How models are trained, as the recipe says but for what is `changed`."""
        return TrainingSettings(**self.recipe.distill.training.model_dump() | changed)

    def unchanged_student(self) -> StageOutput:
        """The stage that holds the student as it is."""

        def build(folder: Path) -> None:
            if self.writes:
                save_model(load_model(self.student_folder), self.student_folder, folder / MODEL)

        return self.stage("student", {"weights": self.student_digest}, build)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.workers.is_writer

    @property
    def workers(self) -> Workers:
        """The processes that run this together."""
        return self.store.workers

    @property
    def device(self) -> torch.device:
        return torch.device(PartialState().device)

    def label_reader(self, folder: Path) -> LabelReader:
        """The model in `folder`, on the run's device."""
        return LabelReader(load_model(folder, device=self.device), score=self.recipe.task.score)

    def teacher_reader(self, folder: Path, load_in: LoadIn, *, scoring: Scoring) -> LabelReader:
        """The teacher in `folder`; where accelerate is configured for FSDP, all processes share its weights.

        Raises:
            DataError: it does not fit in memory, with what it is to score and as often as it is loaded here.
        """
        shards = self.workers.count if self.workers.shards_teacher else 1
        # On CPUs the processes of a node load into the same memory; nobody does before all have looked.
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.device.type == "cpu" else 1
        check_memory(
            folder,
            load_in,
            available_bytes=available_bytes(self.device) // here,
            scoring=scoring,
            shards=shards,
        )
        self.workers.barrier()
        model = load_model(folder, load_in, device=self.device, shards=shards)
        return LabelReader(model, score=self.recipe.task.score)

    def read(self, source: Source) -> list[Example]:
        """The examples of one of the task's sources."""
        return read_examples(source, labels=self.encoder.labels, base_folder=self.base_folder)

    @cached_property
    def train(self) -> list[Example]:
        """The examples of `task.train`."""
        return self.read(self.recipe.task.train)

    @cached_property
    def evaluated(self) -> list[Example]:
        """All evaluation data."""
        return [example for examples in self.evaluation.values() for example in examples]

    @cached_property
    def documents(self) -> list[str]:
        """The plain text of `distill.text`, without documents in which evaluation examples stand.

        Raises:
            DataError: no document, or none that is left.
        """
        source = self.recipe.distill.text
        assert source is not None  # the schema sees to it
        kept, self._documents_left_out = without_evaluated(
            read_texts(source, base_folder=self.base_folder),
            self.evaluated,
            pattern=self.recipe.task.pattern,
            where="distill.text",
        )
        if not kept:
            raise DataError(
                f"distill.text: found an evaluation example in every document of {source}; expected documents "
                "without",
                next_step="give other text, or cut it into shorter documents with `separator`",
            )
        return kept

    def dealt(
        self, seeds: Sequence[int], *, transfer_examples: int, shown_from: Mapping[int, Sequence[Example]]
    ) -> TaskData:
        """`task.train` dealt out, with a demonstration set for each of `seeds`; see `task_data.deal`."""
        shown = self.recipe.distill.demonstrations
        return deal(
            self.train,
            self.evaluated,
            pattern=self.recipe.task.pattern,
            labels=self.encoder.labels,
            demonstrations=shown.count,
            balanced=shown.balanced,
            demonstration_seeds=seeds,
            transfer_examples=transfer_examples,
            seed=self.recipe.seed,
            shown_from=shown_from,
            leakage=self.recipe.distill.leakage,
        )

    def tuning_encoder(self, further: TuningTask) -> PromptEncoder:
        """How examples of a further task are written; what it leaves out is as in the recipe's task."""
        task = self.recipe.task
        return PromptEncoder(
            self.tokenizer,
            pattern=further.pattern or task.pattern,
            verbalizers=further.verbalizers or task.verbalizers,
            separator=task.separator if further.separator is None else further.separator,
        )

    def demonstration_sources(self) -> dict[int, list[Example]]:
        """What each seed's demonstrations are drawn from; empty where that is `task.train`."""
        shown = self.recipe.distill.demonstrations
        if shown.source is None:
            return {}
        return {seed: self.read(shown.source.for_seed(seed)) for seed in shown.seeds}
