"""In-context learning distillation (Huang et al., arXiv 2212.10670), stage by stage.

A teacher that is tuned in context itself, its gain, its targets, the student, the same student tuned without a
teacher, baselines, evaluation. At inference several demonstration sets vote; deployed are those of the seed
after which the student comes closest to its teacher. Evaluation data decides nothing.
"""

from __future__ import annotations

import json
import logging
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.distill import evaluate as methods
from edgeicl.distill.gain import require_gain
from edgeicl.distill.icl_baselines import build_baselines
from edgeicl.distill.icl_tasks import read_icl_data
from edgeicl.distill.icl_teacher import (
    build_episode_targets,
    build_gain,
    divergences,
    read_episode_targets,
    read_scores,
    scores_after,
)
from edgeicl.distill.in_context_tuning import SoftLoss, TextTerm
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import (
    ONLY,
    PREDICTIONS,
    accuracy_rows,
    read_predictions,
    write_predictions,
)
from edgeicl.distill.preflight import check_models
from edgeicl.distill.result import DistillResult
from edgeicl.distill.student import MODEL, best_student
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import read_gain, seed_name
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.distill.tuned_model import build_tuned
from edgeicl.distill.tuning_episodes import Episode, draw_episodes
from edgeicl.distill.voting import Voter
from edgeicl.errors import DataError
from edgeicl.models.loading import load_model, load_tokenizer
from edgeicl.models.model_folder import model_folder, weights_digest
from edgeicl.specs.distillation import Teacher
from edgeicl.specs.measurement import Evaluation
from edgeicl.specs.prefix import PREFIX_SOURCE, write_prefix_source
from edgeicl.store import StageOutput, digest_of
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.text_blocks import text_blocks
from edgeicl.tasks.text_source import read_texts

log = logging.getLogger(__name__)

DIVERGENCES = "divergences.json"


class IclDistillation:
    """The stages of method `icl` on one target task."""

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.recipe, self.settings = run.recipe, run.recipe.distill
        self.icl, self.objective = self.settings.icl, self.settings.objective
        self.encoder = run.encoder
        self.voter = Voter(run.encoder, run.evaluation)
        self.data, self.deviations = read_icl_data(run)

    def distill(self) -> DistillResult:
        """Runs every stage that does not stand in the store."""
        self._check_models()
        teacher = self._tuned_teacher() if self.icl.teacher_epochs else None
        taught_by = teacher.path / MODEL if teacher else self.teacher_folder
        gain_output = self.run.stage(
            "teacher-gain",
            self._task_inputs() | self._teacher_inputs(teacher),
            partial(self._build_gain, taught_by=taught_by),
        )
        gain = read_gain(gain_output.path)
        if self.settings.require_gain:
            require_gain(gain)
        targets = self.run.stage(
            "teacher-targets",
            self._episode_inputs | self._teacher_inputs(teacher),
            partial(self._build_targets, taught_by=taught_by),
        )
        student = self._student(targets, taught_by)
        tuned = self._student_without_teacher()
        prefix = self.run.stage(
            "prefix",
            {"student": student.digest, "gain": gain_output.digest},
            partial(self._build_prefix, student=student, scores=gain_output),
        )
        deployed, _ = best_student(_read_divergences(prefix.path))
        log.info("the demonstration sets of seed %d are deployed", deployed)
        baselines = self.run.stage(
            "baselines",
            self._task_inputs()
            | self._teacher_inputs(teacher)
            | self._student_inputs()
            | self._evaluation_inputs(),
            partial(self._build_baselines, teacher=teacher),
        )
        evaluation = self._evaluate(
            {methods.IN_CONTEXT_TUNING: tuned, methods.ICL_DISTILLATION: student}, baselines
        )
        return DistillResult(
            student=student.path / MODEL,
            digest=weights_digest(student.path / MODEL),
            evaluation=evaluation.model_copy(update={"gain_points": gain.points, "deployed_seed": deployed}),
            outputs=tuple(self.run.outputs),
            source=self.run.student_folder,
            deviations=self.deviations,
            prefix=prefix.path / PREFIX_SOURCE,
        )

    @property
    def teacher(self) -> Teacher:
        assert self.settings.teacher is not None  # the schema sees to it
        return self.settings.teacher

    @cached_property
    def teacher_folder(self) -> Path:
        return model_folder(self.teacher.model, base_folder=self.run.base_folder)

    @cached_property
    def episodes(self) -> list[Episode]:
        return draw_episodes(
            self.data.tuned,
            count=self.icl.episodes,
            demonstrations=self.settings.demonstrations.count,
            balanced=self.settings.demonstrations.balanced,
            every_label=self.icl.labels == "all",
            seed=self.recipe.seed,
        )

    @cached_property
    def sets(self) -> dict[str, list[list[int]]]:
        """Tokens of the demonstration sets that stand before the target's queries, by seed."""
        return {
            seed_name(seed): [self.encoder.demonstrations(shown) for shown in several]
            for seed, several in self.data.shown.items()
        }

    @cached_property
    def blocks(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Token ids [N, T] of the plain text."""
        assert self.settings.text is not None  # the schema sees to it
        documents = read_texts(self.settings.text, base_folder=self.run.base_folder)
        tokenizer = load_tokenizer(self.run.student_folder)
        return text_blocks(tokenizer, documents, block_tokens=self.icl.text_block_tokens)

    def _tuned_teacher(self) -> StageOutput:
        """The teacher after in-context tuning, as the paper's teachers were."""
        inputs = self._episode_inputs | {
            "model": weights_digest(self.teacher_folder),
            "training": self._training_inputs(),
            "epochs": self.icl.teacher_epochs,
            "learning_rate": self.icl.teacher_learning_rate,
        }

        def build(folder: Path) -> None:
            self._tune(
                folder,
                self.teacher_folder,
                "tuning the teacher",
                epochs=self.icl.teacher_epochs,
                learning_rate=self.icl.teacher_learning_rate,
            )

        return self.run.stage("tuned-teacher", inputs, build)

    def _student(self, targets: StageOutput, taught_by: Path) -> StageOutput:
        objective = self.objective
        inputs = self._student_inputs() | {
            "targets": targets.digest,
            "objective": objective.model_dump(mode="json"),
            "soft_loss": self.icl.soft_loss,
            "text": digest_of(self.blocks.tolist()) if objective.lm else None,
        }

        def build(folder: Path) -> None:
            soft = SoftLoss(
                read_episode_targets(targets.path),
                objective.kl,
                temperature=objective.temperature,
                fading=self.icl.soft_loss == "fading",
            )
            text = TextTerm(self.blocks, objective.lm, self._load(taught_by).model) if objective.lm else None
            self._tune(folder, self.run.student_folder, "distilling", ce=objective.ce, soft=soft, text=text)

        return self.run.stage("student", inputs, build)

    def _student_without_teacher(self) -> StageOutput:
        """The baseline that tells what the teacher was good for: the same training with the hard loss alone."""

        def build(folder: Path) -> None:
            self._tune(folder, self.run.student_folder, "in-context tuning")

        inputs = self._episode_inputs | self._student_inputs()
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
            self.episodes,
            over=self.objective.over,
            ce=ce,
            soft=soft,
            text=text,
            settings=self._training(**changed),
            seed=self.recipe.seed,
            device=self.run.device,
            is_writer=self.run.writes,
            description=description,
        )

    def _build_gain(self, folder: Path, taught_by: Path) -> None:
        if self.run.writes:
            build_gain(
                folder,
                lambda: self._load(self.teacher_folder),
                lambda: self._load(taught_by),
                self.encoder,
                self.data.measured,
                self.sets,
            )

    def _build_targets(self, folder: Path, taught_by: Path) -> None:
        if self.run.writes:
            load = partial(self._load, taught_by)
            build_episode_targets(folder, load, self.episodes, over=self.objective.over)

    def _build_prefix(self, folder: Path, student: StageOutput, scores: StageOutput) -> None:
        """Writes how far student and teacher are apart after each seed's sets, and the nearest seed's sets."""
        if not self.run.writes:
            return
        said = scores_after(
            self.run.label_reader(student.path / MODEL),
            self.encoder.queries(self.data.measured),
            list(self.encoder.tokens.values()),
            self.sets,
        )
        apart = divergences(read_scores(scores.path), said)
        (folder / DIVERGENCES).write_text(json.dumps(apart, indent=1) + "\n")
        deployed, _ = best_student(_read_divergences(folder))
        write_prefix_source(
            folder / PREFIX_SOURCE, [np.array(one, dtype=np.int64) for one in self.sets[seed_name(deployed)]]
        )

    def _build_baselines(self, folder: Path, teacher: StageOutput | None) -> None:
        build_baselines(
            folder,
            voter=self.voter,
            predictor=self.run.predictor,
            student=partial(self.run.label_reader, self.run.student_folder),
            teacher=partial(self._load, self.teacher_folder),
            tuned_teacher=partial(self._load, teacher.path / MODEL) if teacher else None,
            demonstrations={seed_name(seed): several for seed, several in self.data.shown.items()},
            sets=self.sets,
            settings=self._training(epochs=self.settings.baseline_epochs),
            seed=self.recipe.seed,
            is_writer=self.run.writes,
        )

    def _evaluate(self, students: dict[str, StageOutput], baselines: StageOutput) -> Evaluation:
        """The accuracy table of `students` (by method) and of the baselines."""

        def build(folder: Path) -> None:
            if not self.run.writes:
                return
            found = read_predictions(baselines.path / PREDICTIONS)
            for method, output in students.items():
                load = partial(self.run.label_reader, output.path / MODEL)
                found |= self.voter.predict(load, method, self.sets)
            write_predictions(folder / PREDICTIONS, found)

        inputs = (
            self._task_inputs()
            | self._evaluation_inputs()
            | {
                "students": {method: output.digest for method, output in students.items()},
                "baselines": baselines.digest,
            }
        )
        predictions = read_predictions(self.run.stage("evaluation", inputs, build).path / PREDICTIONS)
        rows = accuracy_rows(
            methods.TABLE_ORDER, predictions, self.run.evaluation, self.encoder, runs=(ONLY, *self.sets)
        )
        return Evaluation(rows=rows)

    def _task_inputs(self) -> dict[str, Any]:
        """What decides how a model is asked about the target task."""
        measured = self.encoder.queries(self.data.measured)
        return self.run.task_inputs() | {
            "prompts": digest_of(
                [list(self.encoder.tokens.values()), self.encoder.leading, self.sets, measured]
            ),
            "measured": examples_digest([("measured", self.data.measured)]),
        }

    def _evaluation_inputs(self) -> dict[str, Any]:
        return {"evaluation": examples_digest(self.run.evaluation.items())}

    def _teacher_inputs(self, tuned: StageOutput | None) -> dict[str, Any]:
        return {
            "teacher": weights_digest(self.teacher_folder),
            "load_in": self.teacher.load_in,
            "tuned": tuned and tuned.digest,
        }

    @cached_property
    def _episode_inputs(self) -> dict[str, Any]:
        drawn = [[one.ids, one.reads, one.gold, one.words] for one in self.episodes]
        return {"episodes": digest_of(drawn), "over": self.objective.over}

    def _student_inputs(self) -> dict[str, Any]:
        return {
            "student": self.run.student_digest,
            "training": self._training_inputs(),
            "epochs": self.settings.baseline_epochs,
            "seed": self.recipe.seed,
        }

    def _training_inputs(self) -> dict[str, Any]:
        # How often a checkpoint is written changes nothing in the result.
        return self.settings.training.model_dump(mode="json", exclude={"checkpoint_every_steps"})

    def _training(self, **changed: Any) -> TrainingSettings:
        return TrainingSettings(**self.settings.training.model_dump() | changed)

    def _load(self, folder: Path) -> LabelReader:
        """A teacher."""
        return LabelReader(load_model(folder, self.teacher.load_in, device=self.run.device))

    def _check_models(self) -> None:
        """Raises DataError for models that don't fit each other, the episodes or the target's prompts."""
        over = self.objective.over
        several = {
            task.where: task.encoder.tokens
            for task in self.data.tuned
            if any(len(word) > 1 for word in task.encoder.tokens.values())
        }
        if over == "vocabulary" and several:
            raise DataError(
                f"an objective over the vocabulary needs verbalizers of one token; found {several}",
                next_step="choose other verbalizers, or set distill.objective.over: verbalizers",
            )
        answer = max(map(len, self.encoder.tokens.values())) - 1
        query = answer + max(
            self.run.predictor.longest_tokens, *map(len, self.encoder.queries(self.data.measured))
        )
        shown = query + max(len(one) for several in self.sets.values() for one in several)
        tuned = max(len(episode.ids) + max(map(len, episode.words)) - 1 for episode in self.episodes)
        unread = check_models(
            self.teacher_folder,
            self.run.student_folder,
            self.encoder.tokens,
            over=over if self.objective.lm == 0 else "vocabulary",
            query_tokens=len(self.encoder.leading) + query,
            prompt_tokens=max(shown, tuned),
        )
        if unread:
            raise DataError(
                f"the longest prompt with demonstrations has {max(shown, tuned):,} tokens: {unread[0].why}",
                next_step="lower distill.demonstrations.count, or take a student that reads more",
            )


def _read_divergences(folder: Path) -> dict[int, float]:
    """Mean KL of the student to its teacher, by demonstration seed."""
    found = json.loads((folder / DIVERGENCES).read_text())
    return {int(name.rpartition("_")[2]): value for name, value in found.items()}
