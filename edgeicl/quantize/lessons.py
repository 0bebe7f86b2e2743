"""What a quantized student learns from: token sequences, and for queries what a teacher answers to them.

At every token the exact student's own distribution is the target (arXiv 2305.17888, section 3.2); where a
query ends, the teacher's answer too. Both are KL in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.quantize.student_in_training import Logits, StudentInTraining
from edgeicl.tasks.label_targets import LabelTargets


@dataclass(frozen=True, eq=False)
class Answers:
    """A teacher's answers, and how a student is asked for its own.

    Args:
        targets: The teacher's, for the rows of a lesson.
        words: Tokens of each label's word, in the order of the targets' labels.
        score: Of a word's log-probabilities.
    """

    targets: LabelTargets
    words: Sequence[tuple[int, ...]]
    score: Literal["sum", "mean"] = "sum"


@dataclass(frozen=True, eq=False)
class Lesson:
    """Sequences of one kind, told apart by `name`.

    Args:
        rows: Token ids of each.
        answers: To the rows where these are queries that a teacher has answered.
        before: What stands before each row: of each demonstration set, token ids [P] or vectors [P, H].
    """

    name: str
    rows: Sequence[Sequence[int]]
    answers: Answers | None = None
    before: Sequence[NDArray[Any]] = ()

    def losses(
        self, student: StudentInTraining, indices: NDArray[np.int64], step: int
    ) -> tuple[Tensor, Tensor]:
        """KL to the exact student, and to the teacher's answers (0 without), the mean of the rows `indices`.

        `step` says which of several demonstration sets stands before them: they take turns.
        """
        rows = [self.rows[index] for index in indices]
        before = self.before[step % len(self.before)] if self.before else None
        exact, stored = student.exact_logits(rows, before), student.logits(rows, before)
        per_token = _kl(torch.log_softmax(exact.values, -1), torch.log_softmax(stored.values, -1))
        own = per_token[stored.real].mean()
        if self.answers is None:
            return own, torch.zeros_like(own)
        targets = torch.from_numpy(self.answers.targets.log_probabilities[indices]).to(own).float()
        if self.answers.targets.over == "vocabulary":
            told = torch.log_softmax(stored.from_end(0), -1)
            if student.columns is not None:  # the teacher's, of the labels alone
                targets = torch.log_softmax(targets[:, list(student.columns)], -1)
        else:
            told = label_log_probabilities(student, rows, stored, self.answers, before)
        return own, _kl(targets, told).mean()


def label_log_probabilities(
    student: StudentInTraining,
    rows: Sequence[Sequence[int]],
    logits: Logits,
    answers: Answers,
    before: NDArray[Any] | None,
) -> Tensor:
    """[B, L] of each label after each row, renormalized over them; `logits` are of the rows themselves."""
    after: dict[tuple[int, ...], Logits] = {(): logits}
    scores = []
    for word in answers.words:
        told = word[:-1]
        if told not in after:
            after[told] = student.logits([[*row, *told] for row in rows], before)
        places = [student.columns[token] for token in word] if student.columns is not None else list(word)
        score = torch.zeros(len(rows), device=logits.values.device)
        for count, place in enumerate(places):
            score = score + torch.log_softmax(after[told].from_end(len(told) - count), -1)[:, place]
        scores.append(score / len(word) if answers.score == "mean" else score)
    return torch.log_softmax(torch.stack(scores, -1), -1)


def _kl(targets: Tensor, found: Tensor) -> Tensor:
    """KL(targets || found) in nats over the last dimension of log-probabilities."""
    return (targets.exp() * (targets - found)).sum(-1)
