"""MEND (arXiv 2403.06914), stage by stage: demonstrations become vectors that stand before a frozen student.

The gain of the student from plain demonstrations, the two trainings of the hypernetwork, the vectors of every
demonstration set, the evaluation (`mend_evaluation`). The student with plain demonstrations is the teacher.
Evaluation data decides nothing here: the gain and the choice among sets are measured on transfer examples.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeicl.distill.compression import build_compression, read_deployed
from edgeicl.distill.gain import certain_gain
from edgeicl.distill.hypernetwork import (
    Hypernetwork,
    load_hypernetwork,
    new_hypernetwork,
    save_hypernetwork,
)
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.mend_data import MendData
from edgeicl.distill.mend_evaluation import evaluate
from edgeicl.distill.mend_training import train_on_tasks, train_on_text
from edgeicl.distill.meta_training import draw_episode
from edgeicl.distill.result import DistillResult
from edgeicl.distill.student import MODEL
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import GAIN_EXAMPLES, build_gain, read_gain
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.errors import DataError
from edgeicl.models.loading import load_model
from edgeicl.models.model_folder import model_folder, weights_digest
from edgeicl.specs.manifest import COMPRESSOR
from edgeicl.specs.mend import OnTasks, OnText
from edgeicl.specs.prefix import PREFIX_SOURCE
from edgeicl.store import CHECKPOINT, StageOutput, digest_of
from edgeicl.tasks.examples_digest import examples_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

_LOSSES = "losses.json"


class Mend:
    """The stages of method `mend` on one task."""

    def __init__(self, run: TaskRun) -> None:
        self.run = run
        self.settings = run.recipe.distill
        assert self.settings.mend is not None  # the schema sees to it
        self.mend = self.settings.mend
        self.encoder = run.encoder
        self.source = model_folder(self.mend.hypernetwork.model, base_folder=run.base_folder)
        self.data = MendData(run, self.mend, self.source)

    def distill(self) -> DistillResult:
        """Runs every stage that does not stand in the store.

        Raises:
            DataError: models, data and processes that can't be worked with, before any work.
            GainError: plain demonstrations help nothing.
        """
        self._check_processes()
        self.data.check()
        gain_output = self.run.stage("teacher-gain", self._gain_inputs(), self._build_gain)
        gain = read_gain(gain_output.path)
        certain = certain_gain(gain, required=self.settings.require_gain)
        hypernetwork = self._trained_on_tasks(self._trained_on_text())
        assert hypernetwork is not None  # the schema asks for one stage at least
        compressed = self.run.stage(
            "vectors",
            {
                "hypernetwork": hypernetwork.digest,
                "gain": gain_output.digest,
                "held_out": examples_digest([("held_out", self.data.target.held_out)]),
                "votes": self.mend.votes,
            },
            lambda folder: self._build_vectors(folder, hypernetwork),
        )
        student = self.run.unchanged_student()
        evaluation = evaluate(self.run, self.data, gain=gain_output, vectors=compressed)
        deployed = read_deployed(compressed.path)
        log.info("deployed: the vectors of demonstration seed %s", ", ".join(map(str, deployed)))
        return DistillResult(
            student=student.path / MODEL,
            digest=weights_digest(student.path / MODEL),
            evaluation=evaluation.model_copy(
                update={
                    "gain_points": gain.points,
                    "gain_certain": certain,
                    "deployed_seed": deployed[0] if len(deployed) == 1 else None,
                }
            ),
            outputs=tuple(self.run.outputs),
            deviations=self.data.deviations,
            source=self.run.student_folder,
            prefix=compressed.path / PREFIX_SOURCE,
            compressor=hypernetwork.path / COMPRESSOR,
        )

    def _check_processes(self) -> None:
        if self.run.workers.shards_teacher:
            raise DataError(
                "method mend under FSDP; expected processes that each hold the whole student: it is the "
                "teacher too, and the hypernetwork learns through it",
                next_step="launch without FSDP (torchrun, or accelerate launch --multi_gpu); "
                "distill.mend.load_in makes the frozen student smaller",
            )

    def _gain_inputs(self) -> dict[str, Any]:
        return self.run.task_inputs() | {
            "student": self.run.student_digest,
            "load_in": self.mend.load_in,
            "data": self.data.target.digest,
            "prompts": list(self.data.named_contexts.values()),
        }

    def _build_gain(self, folder: Path) -> None:
        build_gain(
            folder,
            lambda: LabelReader(self._language_model(), score=self.run.recipe.task.score),
            self.encoder,
            self.data.target.scored[:GAIN_EXAMPLES],
            contexts=self.data.named_contexts,
            over="verbalizers",
            workers=self.run.workers,
        )

    def _trained_on_text(self) -> StageOutput | None:
        """Stage 1; None where it is left out."""
        settings = self.mend.on_text
        if settings.steps == 0:
            return None
        texts = self.data.texts

        def build(folder: Path) -> None:
            hypernetwork = self._hypernetwork(None)
            losses = train_on_text(
                hypernetwork,
                self._language_model(),
                texts,
                context_share=settings.context_share,
                steps=settings.steps,
                settings=self._training(settings),
                seed=self.run.recipe.seed,
                checkpoint_folder=folder / CHECKPOINT,
            )
            self._save(folder, hypernetwork, losses)

        inputs = self._hypernetwork_inputs() | {
            "settings": settings.model_dump(mode="json"),
            "texts": digest_of(texts),
        }
        return self.run.stage("mend-on-text", inputs, build)

    def _trained_on_tasks(self, before: StageOutput | None) -> StageOutput | None:
        """Stage 2, from what stage 1 made; that itself where stage 2 is left out."""
        settings = self.mend.on_tasks
        if settings.steps == 0:
            return before
        shown = self.settings.demonstrations
        tasks, room = self.data.meta_tasks, self.data.room

        def build(folder: Path) -> None:
            hypernetwork = self._hypernetwork(before)
            losses = train_on_tasks(
                hypernetwork,
                self._language_model(),
                lambda index: draw_episode(
                    tasks,
                    demonstrations=shown.count,
                    balanced=shown.balanced,
                    queries=settings.queries,
                    room=room,
                    seed=f"{self.run.recipe.seed}/{index}",
                ),
                kl=settings.kl,
                places=settings.kl_over,
                steps=settings.steps,
                settings=self._training(settings),
                checkpoint_folder=folder / CHECKPOINT,
            )
            self._save(folder, hypernetwork, losses)

        inputs = self._hypernetwork_inputs() | {
            "before": before and before.digest,
            "settings": settings.model_dump(mode="json"),
            "tasks": self.data.meta_tasks_digest,
            "demonstrations": [shown.count, shown.balanced],
        }
        return self.run.stage("mend-on-tasks", inputs, build)

    def _hypernetwork_inputs(self) -> dict[str, Any]:
        told_by_stages = {"learning_rate", "batch_size", "epochs"}
        training = self.settings.training.deciding()
        return {
            "hypernetwork": weights_digest(self.source),
            "student": self.run.student_digest,
            "load_in": self.mend.load_in,
            "vectors": self.mend.vectors,
            "placeholders": self.mend.placeholders,
            "training": {key: value for key, value in training.items() if key not in told_by_stages},
            "seed": self.run.recipe.seed,
        }

    def _build_vectors(self, folder: Path, hypernetwork: StageOutput) -> None:
        if self.run.writes:
            held_out = self.data.target.held_out
            build_compression(
                folder,
                load_hypernetwork(hypernetwork.path / COMPRESSOR, device=self.run.device),
                self.run.label_reader(self.run.student_folder),
                self.data.contexts,
                queries=self.encoder.queries(held_out),
                tokens=list(self.encoder.tokens.values()),
                gold=self.encoder.label_indices(held_out),
                votes=self.mend.votes,
            )

    def _language_model(self) -> PreTrainedModel:
        return load_model(self.run.student_folder, self.mend.load_in, device=self.run.device)

    def _hypernetwork(self, trained: StageOutput | None) -> Hypernetwork:
        if trained is not None:
            return load_hypernetwork(trained.path / COMPRESSOR, device=self.run.device)
        return new_hypernetwork(
            load_model(self.source, device=self.run.device),
            vectors=self.mend.vectors,
            width=self.data.embedding_width,
            start=self.mend.placeholders,
            seed=self.run.recipe.seed,
        )

    def _save(self, folder: Path, hypernetwork: Hypernetwork, losses: list[float]) -> None:
        if self.run.writes:
            save_hypernetwork(hypernetwork, self.source, folder / COMPRESSOR)
            (folder / _LOSSES).write_text(json.dumps(losses) + "\n")

    def _training(self, settings: OnText | OnTasks) -> TrainingSettings:
        return self.run.training(learning_rate=settings.learning_rate, batch_size=settings.batch_size, epochs=1)
