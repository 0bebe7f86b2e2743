"""The first stage of a student: its hidden states, attention and domain feature follow the teacher's.

Source: Meta-KD (arXiv 2012.01266), section 3, meta-distillation; terms and layer map as in TinyBERT
(arXiv 1909.10351). Attention is matched as probabilities, which is what decoders hand out.
Notation: B prompts, T tokens, A attention heads, H width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeicl.distill.label_batch import LabelPass
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.meta_kd.states import all_states, mean_state, prompt_mask, prompt_pass
from edgeicl.distill.trainer import TrainingSettings, train
from edgeicl.distill.training_plan import batch_order
from edgeicl.errors import DataError


@dataclass(frozen=True)
class MatchingTerms:
    """Weights of the terms."""

    hidden: float
    attention: float
    domain_feature: float

    @property
    def any(self) -> bool:
        """Whether there is anything to match."""
        return any((self.hidden, self.attention, self.domain_feature))


class Features(NamedTuple):
    """What is matched of one batch: S + 1 hidden states [B, T, H], S attentions [B, A, T, T], [B, H]."""

    hidden: list[Tensor]
    attention: list[Tensor]
    domain: Tensor | None


def layer_map(teacher_layers: int, student_layers: int) -> list[int]:
    """For each hidden state of the student, from its embeddings on, the place of the teacher's.

    Uniform; the last goes to the last, also where the one number is no multiple of the other.

    Raises:
        DataError: a student with more layers than its teacher.
    """
    if student_layers > teacher_layers:
        raise DataError(
            f"the student has {student_layers} layers, its teacher {teacher_layers}; expected at most as many",
            next_step="take another pair of models, or set distill.meta_kd.matching.epochs: 0",
        )
    return [layer * teacher_layers // student_layers for layer in range(student_layers + 1)]


def check_heads(teacher_heads: int, student_heads: int) -> None:
    """DataError unless each head of the student can follow as many heads of the teacher as any other."""
    if teacher_heads % student_heads:
        raise DataError(
            f"attention can't be matched: the teacher has {teacher_heads} heads, the student {student_heads}; "
            "expected a multiple",
            next_step="set distill.meta_kd.matching.attention: 0, or take another pair of models",
        )


def group_heads(attention: Tensor, heads: int) -> Tensor:
    """[B, A, T, T] as [B, heads, T, T]: the mean of each run of A / heads neighbours."""
    rows, _, *square = attention.shape
    return attention.reshape(rows, heads, -1, *square).mean(2)


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference over the tokens of `mask` [B, T] and all widths, [B]."""
    squares = (student - teacher).square().mean(-1) * mask
    return squares.sum(1) / mask.sum(1)


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference over heads and over the pairs of tokens that may see each other, [B]."""
    length = mask.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    pairs = mask[:, :, None] & mask[:, None, :] & earlier
    squares = (student - teacher).square().mean(1) * pairs
    return squares.sum((1, 2)) / pairs.sum((1, 2))


def matching_loss(student: Features, teacher: Features, mask: Tensor, terms: MatchingTerms) -> Tensor:
    """Sum over layers of both losses, and the domain features' mean squared difference, [B]."""
    loss = torch.zeros(len(mask), device=mask.device)
    if terms.hidden:
        pairs = zip(student.hidden, teacher.hidden, strict=True)
        loss = loss + terms.hidden * sum(hidden_loss(*pair, mask) for pair in pairs)
    if terms.attention:
        pairs = zip(student.attention, teacher.attention, strict=True)
        loss = loss + terms.attention * sum(attention_loss(*pair, mask) for pair in pairs)
    if student.domain is not None and teacher.domain is not None:
        loss = loss + terms.domain_feature * (student.domain - teacher.domain).square().mean(-1)
    return loss


class MatchedStudent(nn.Module):
    """A student with one learned projection to its teacher's width, for hidden states and domain feature alike.

    The student is for one domain, whose embedding is the bias of `dense`.
    """

    def __init__(self, reader: LabelReader, width: int, teacher_width: int, *, domain: bool, skip: int) -> None:
        super().__init__()
        self.reader, self.skip = reader, skip
        self.projection = nn.Linear(width, teacher_width)
        self.dense = nn.Linear(width, width) if domain else None

    def forward(self, one: LabelPass) -> Features:
        states = all_states(self.reader, one)
        feature = None
        if self.dense is not None:
            content = mean_state(states.hidden_states[-1], prompt_mask(one, skip=self.skip))
            feature = self.projection(self.dense(content).tanh())
        hidden = [self.projection(state) for state in states.hidden_states]
        return Features(hidden, list(states.attentions), feature)


DomainFeature = Callable[[Tensor], Tensor]
"""From the teacher's mean hidden states [B, H] to what the student's domain feature is to follow, [B, H]."""


def train_to_match(
    student: LabelReader,
    teacher: LabelReader,
    *,
    rows: Sequence[Sequence[int]],
    weights: NDArray[np.float32],
    terms: MatchingTerms,
    domain_feature: DomainFeature | None,
    skip: int,
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | None = None,
    description: str = "matching features",
) -> list[float]:
    """Trains the student in place on prompts `rows` with `weights` [N]; returns the loss of every step.

    Both models must compute attention eagerly (`states.with_attention`). The projection starts from `seed`.

    Args:
        domain_feature: None: that term is left out.
        skip: Tokens at the start of each prompt that the domain feature leaves out.
    """
    ours, theirs = student.model.config, teacher.model.config
    places = layer_map(theirs.num_hidden_layers, ours.num_hidden_layers)
    if terms.attention:
        check_heads(theirs.num_attention_heads, ours.num_attention_heads)
    device = student.device
    torch.manual_seed(seed)
    module = MatchedStudent(
        student, ours.hidden_size, theirs.hidden_size, domain=domain_feature is not None, skip=skip
    ).to(device)
    importance = torch.from_numpy(weights).to(device)

    @torch.no_grad()
    def target(one: LabelPass) -> Features:
        states = all_states(teacher, one)
        feature = None
        if domain_feature is not None:
            feature = domain_feature(mean_state(states.hidden_states[-1], prompt_mask(one, skip=skip)))
        attention = []
        if terms.attention:
            attention = [
                group_heads(states.attentions[place - 1], ours.num_attention_heads) for place in places[1:]
            ]
        return Features([states.hidden_states[place] for place in places], attention, feature)

    def loss(wrapped: nn.Module, examples: NDArray[np.int64], step: int) -> Tensor:
        one = prompt_pass([rows[index] for index in examples], device)
        found = matching_loss(wrapped(one), target(one), prompt_mask(one), terms)
        # No term reads all weights (none the head), and several processes need a gradient for each.
        found = found + 0.0 * sum(parameter.sum() for parameter in module.parameters())
        return importance[torch.from_numpy(examples).to(device)] * found

    return train(
        module,
        loss,
        batches=batch_order(
            [len(row) for row in rows], batch_size=settings.batch_size, epochs=settings.epochs, seed=seed
        ),
        settings=settings,
        checkpoint_folder=checkpoint_folder,
        description=description,
    )
