"""Quantization-aware distillation: a student of few bits learns again what it lost by rounding.

The exact student teaches at every token (LLM-QAT, arXiv 2305.17888), the teacher where a query is answered, and
weights are trained as they are stored (`fake_quantization`). Steps are judged on rows that nothing was trained
on. Training starts with what the plan's solver stored, which is the first to be judged: the result is never
worse on those rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, pi
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.checkpoint import newest_checkpoint, save_checkpoint
from edgeicl.progress import track
from edgeicl.quantize.lessons import Lesson
from edgeicl.quantize.stored_weights import Stored
from edgeicl.quantize.student_in_training import StudentInTraining
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.recovery import Judged, Recovery

HELD_OUT_SHARE = 8
"""One row of so many is judged on, and not trained on."""
MOST_HELD_OUT = 128
JUDGED_TIMES = 10
"""How often held-out rows are looked at, and a checkpoint written, beside the start."""

log = logging.getLogger(__name__)

_STATE = "recovery.pt"
_WARMUP = 0.05


@dataclass(frozen=True)
class Recovered:
    """The best of what was judged.

    Args:
        weights: The student with biases and other parameters as they were trained.
        stored: Every group as it was judged.
        record: What was judged.
    """

    weights: StudentWeights
    stored: dict[str, Stored]
    record: Recovery


def recover(
    student: StudentInTraining,
    lessons: Sequence[Lesson],
    *,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    checkpoint_folder: Path | None = None,
) -> Recovered:
    """Trains `student` in place, and gives the best of what it was on the way.

    Args:
        lessons: Each gives a batch to every step; a row of eight, 128 at most, is held out of each.
        learning_rate: Of weights in units of their scales, at its peak.
        batch_size: Rows of each lesson in a step.
        checkpoint_folder: Keeps what a killed run needs to go on, and on a CPU to end with the same bits.
    """
    divided = [_divided(len(lesson.rows), seed) for lesson in lessons]
    optimizer = torch.optim.Adam(student.parameters(learning_rate))
    peaks = [group["lr"] for group in optimizer.param_groups]
    trained = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    course = _restored(checkpoint_folder, trained, optimizer)
    if course is None:
        course = _Course([_judged(student, lessons, divided, batch_size, step=0)], 0, _copies(trained))
    done = course.judged[-1].step
    every = ceil(steps / JUDGED_TIMES)
    with track("recovering", steps, already_done=done) as advance:
        for step in range(done, steps):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * _share_of_peak(step, steps)
            own, answers = zip(
                *(
                    lesson.losses(student, _drawn(rows, batch_size, seed=[seed, number, step]), step)
                    for number, (lesson, (rows, _)) in enumerate(zip(lessons, divided, strict=True))
                ),
                strict=True,
            )
            optimizer.zero_grad()
            torch.autograd.backward(torch.stack(own).mean() + torch.stack(answers).sum())
            optimizer.step()
            advance(1)
            if (step + 1) % every == 0 or step + 1 == steps:
                course.note(_judged(student, lessons, divided, batch_size, step=step + 1), trained)
                if checkpoint_folder is not None:
                    _save(checkpoint_folder, course, trained, optimizer)
    _set(trained, course.best)
    weights, stored = student.result()
    record = Recovery(
        sequences=sum(len(rows) for rows, _ in divided),
        held_out=sum(len(rows) for _, rows in divided),
        judged=tuple(course.judged),
        best_step=course.best_step,
    )
    return Recovered(weights, stored, record)


@dataclass
class _Course:
    """What was judged so far, and the parameters that were best."""

    judged: list[Judged]
    best_step: int
    best: list[Tensor]

    def note(self, judged: Judged, trained: Sequence[Tensor]) -> None:
        least = next(one.loss for one in self.judged if one.step == self.best_step)
        self.judged.append(judged)
        if judged.loss < least:  # never so for NaN
            self.best_step, self.best = judged.step, _copies(trained)


Rows = NDArray[np.int64]


def _divided(count: int, seed: int) -> tuple[Rows, Rows]:
    """Indices of the rows that are trained on, and of those held out."""
    order = np.random.default_rng(seed).permutation(count)
    held_out = min(MOST_HELD_OUT, max(1, count // HELD_OUT_SHARE))
    return order[held_out:], order[:held_out]


def _drawn(rows: Rows, count: int, *, seed: Sequence[int]) -> Rows:
    return np.random.default_rng(seed).choice(rows, size=min(count, len(rows)), replace=False)


def _share_of_peak(step: int, steps: int) -> float:
    """Of the learning rate: up in a twentieth of the steps, then down to 0 as half a cosine."""
    return min(1.0, (step + 1) / ceil(_WARMUP * steps)) * (1 + cos(pi * step / steps)) / 2


@torch.no_grad()
def _judged(
    student: StudentInTraining,
    lessons: Sequence[Lesson],
    divided: Sequence[tuple[Rows, Rows]],
    batch_size: int,
    *,
    step: int,
) -> Judged:
    own, answers = [], []
    for lesson, (_, held_out) in zip(lessons, divided, strict=True):
        starts = range(0, len(held_out), batch_size)
        parts = [held_out[start : start + batch_size] for start in starts]
        found = [lesson.losses(student, part, turn) for turn, part in enumerate(parts)]
        means = np.average(
            [[float(loss) for loss in pair] for pair in found], axis=0, weights=[*map(len, parts)]
        )
        own.append(means[0])
        if lesson.answers is not None:
            answers.append(means[1])
    return Judged(
        step=step, kl_to_student=float(np.mean(own)), kl_to_teacher=float(np.sum(answers)) if answers else None
    )


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def _set(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _save(folder: Path, course: _Course, trained: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
    state = {
        "judged": [one.model_dump() for one in course.judged],
        "best_step": course.best_step,
        "best": course.best,
        "trained": _copies(trained),
        "optimizer": optimizer.state_dict(),
    }
    save_checkpoint(folder, course.judged[-1].step, lambda beside: torch.save(state, beside / _STATE))


def _restored(
    folder: Path | None, trained: Sequence[Tensor], optimizer: torch.optim.Optimizer
) -> _Course | None:
    """Puts back what the newest checkpoint holds; None where there is none."""
    checkpoint = None if folder is None else newest_checkpoint(folder)
    if checkpoint is None:
        return None
    state = torch.load(checkpoint / _STATE, map_location="cpu", weights_only=True)
    _set(trained, state["trained"])
    optimizer.load_state_dict(state["optimizer"])
    course = _Course([Judged.model_validate(one) for one in state["judged"]], state["best_step"], state["best"])
    log.info("recovery goes on from step %d (%s)", course.judged[-1].step, checkpoint)
    return course
