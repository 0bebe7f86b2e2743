"""The stages of a teacher: weights of its examples, its training, its answers for the student's domain."""

from __future__ import annotations

import logging
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.label_training import train_on_labels
from edgeicl.distill.meta_kd.course import Course
from edgeicl.distill.meta_kd.domain_head import DomainHead
from edgeicl.distill.meta_kd.meta_task import MetaTask
from edgeicl.distill.meta_kd.meta_teacher import train_meta_teacher
from edgeicl.distill.meta_kd.states import StateReader, embed
from edgeicl.distill.meta_kd.transferability import transferability
from edgeicl.distill.objective import cross_entropy
from edgeicl.distill.scoring import score_queries
from edgeicl.models.loading import load_model
from edgeicl.progress import track
from edgeicl.store import CHECKPOINT, StageOutput

log = logging.getLogger(__name__)

_WEIGHTS = "weights.safetensors"
_TARGETS = "targets.safetensors"
_DOMAIN_HEAD = "domain_head.safetensors"
_VALUES = "values"


class TeacherStage:
    """Trains the teacher of any course."""

    def __init__(self, task: MetaTask) -> None:
        self.task = task

    def weights(self, course: Course) -> tuple[str, NDArray[np.float32]]:
        """Digest and values [N] of the weights of all training examples."""
        return self._transferable if course.weighted else ("", np.ones(len(self.task.rows), np.float32))

    @cached_property
    def _transferable(self) -> tuple[str, NDArray[np.float32]]:
        settings = self.task.meta_kd.weights
        inputs = self.task.common_inputs() | settings.model_dump(mode="json")
        output = self.task.run.stage("transferability", inputs, self._build_weights)
        found: NDArray[np.float32] = load_file(output.path / _WEIGHTS)[_VALUES]
        low, middle, high = np.quantile(found, [0.05, 0.5, 0.95])
        log.info("transferability: %.3f in the median, 5 %% below %.3f and above %.3f", middle, low, high)
        return output.digest, found

    def _build_weights(self, folder: Path) -> None:
        task, settings = self.task, self.task.meta_kd.weights
        assert settings.prototypes != "none"  # such a course is not weighted
        if not task.run.writes:
            return
        with track("transferability", len(task.rows)) as advance:
            embeddings = embed(
                task.run.label_reader(task.run.teacher_folder),
                task.rows,
                pooling=settings.embedding,
                skip=task.skip,
                advance=advance,
            )
        values = transferability(
            embeddings,
            task.encoder.label_indices(task.data.examples),
            task.data.domains,
            prototypes=settings.prototypes,
            own_domain_share=settings.own_domain_share,
        )
        save_file({_VALUES: values}, folder / _WEIGHTS)

    def run(self, course: Course) -> StageOutput:
        """The trained teacher, its domain head where it has one, and its answers."""
        digest, weights = self.weights(course)
        settings = self.task.meta_kd
        inputs = self.task.common_inputs() | {
            "weights": digest,
            "domains": [course.own_domain, course.other_domains],
            "steps": settings.teacher_steps,
            "learning_rate": settings.teacher_learning_rate,
            "confusion": course.confusion and settings.confusion.model_dump(mode="json"),
        }
        return self.task.run.stage(
            "domain-teacher", inputs, lambda folder: self._build(folder, course, weights), name=course.teacher
        )

    def _build(self, folder: Path, course: Course, weights: NDArray[np.float32]) -> None:
        task, settings = self.task, self.task.meta_kd
        domains = task.data.domains
        seen = np.flatnonzero((domains == 0) & course.own_domain | (domains > 0) & course.other_domains)
        gold = task.encoder.label_indices(task.data.examples)[seen]
        epochs = math.ceil(settings.teacher_steps * task.settings.training.batch_size / len(seen))
        model = load_model(task.run.teacher_folder, device=task.run.device)
        reader = StateReader(model, score=task.recipe.task.score)
        how: dict[str, Any] = {
            "rows": [task.rows[index] for index in seen],
            "tokens": task.tokens,
            "settings": task.run.training(epochs=epochs, learning_rate=settings.teacher_learning_rate),
            "seed": task.recipe.seed,
            "checkpoint_folder": folder / CHECKPOINT,
            "description": f"training the {course.teacher}",
        }
        if course.confusion:
            head = self._new_head(reader)
            losses = train_meta_teacher(
                reader,
                head,
                gold=gold,
                domains=domains[seen],
                weights=weights[seen],
                confusion=course.confusion,
                confusion_labels=settings.confusion.labels,
                skip=task.skip,
                **how,
            )
            if task.run.writes:
                save_weights(head, str(folder / _DOMAIN_HEAD))
        else:
            answers = torch.from_numpy(gold).to(reader.device)
            relative = torch.from_numpy(weights[seen] / weights[seen].mean()).to(reader.device)
            losses = train_on_labels(
                reader,
                over="verbalizers",
                loss=lambda labels, places: relative[places] * cross_entropy(labels, answers[places]),
                **how,
            )
        task.keep(folder, reader, task.run.teacher_folder, losses, course.teacher)
        if task.run.writes:
            queries = task.encoder.queries(task.own)
            values = score_queries(reader, queries, task.tokens, before=task.encoder.leading)
            save_file({_VALUES: values}, folder / _TARGETS)

    def read_head(self, teacher: StageOutput, reader: LabelReader) -> DomainHead:
        """The domain head of a finished teacher, which `reader` holds."""
        head = self._new_head(reader)
        load_weights(head, str(teacher.path / _DOMAIN_HEAD))
        return head

    def _new_head(self, reader: LabelReader) -> DomainHead:
        torch.manual_seed(self.task.recipe.seed)
        embedded = self.task.meta_kd.confusion.labels != "reversed"
        width = reader.model.config.hidden_size
        return DomainHead(width, len(self.task.data.names), embedded=embedded).to(reader.device)


def read_answers(teacher: StageOutput) -> NDArray[np.float32]:
    """The teacher's log-probabilities for the examples of the student's domain, [N, L]."""
    found: NDArray[np.float32] = load_file(teacher.path / _TARGETS)[_VALUES]
    return found
