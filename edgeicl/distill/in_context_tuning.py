"""In-context tuning, with a teacher or without: demonstrations and query in, the query's label out.

Without a teacher it is that of Chen et al. (arXiv 2110.07814), with one in-context learning distillation
(arXiv 2212.10670): the cross-entropy with the true label (hard loss) plus the divergence from what the teacher
says after the same demonstrations (soft loss), and, where text is given, both losses of its next tokens too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.objective import cross_entropy, kl_to_teacher
from edgeicl.distill.text_modelling import TextTeacher, text_loss
from edgeicl.distill.trainer import Loss, TrainingSettings, train
from edgeicl.distill.training_plan import batch_order
from edgeicl.distill.tuning_episodes import Episode, by_words, episode_batch

PASS_TOKENS = 8192
"""Tokens of padded episodes in a pass where nothing is trained; a longer episode goes alone."""


@dataclass(frozen=True)
class SoftLoss:
    """What the teacher says, and how much it counts.

    `targets` are its log-probabilities [reads, L] (or [reads, V]) for each episode. `fading` lets the weight
    fall linearly to 0 over the training.
    """

    targets: Sequence[NDArray[Any]]
    weight: float
    temperature: float = 1.0
    fading: bool = False

    def weight_at(self, step: int, steps: int) -> float:
        """The weight in the step of that number; they are counted from 0."""
        return self.weight * (1 - step / steps) if self.fading else self.weight


@dataclass(frozen=True)
class TextTerm:
    """Plain text to model beside the episodes: blocks [N, T] of token ids, one with each episode.

    Its next tokens have the hard and the soft loss that labels have, times `weight`; without a teacher the hard
    one alone.
    """

    blocks: NDArray[np.int64]
    weight: float
    teacher: LabelReader | None = None


def tune_in_context(
    reader: LabelReader,
    episodes: Sequence[Episode],
    *,
    over: Over,
    ce: float,
    soft: SoftLoss | None = None,
    text: TextTerm | None = None,
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | None = None,
    description: str = "in-context tuning",
) -> list[float]:
    """Trains the reader's model in place and returns the loss of every step; see `trainer.train`.

    The loss of an episode is the mean over its reads.
    """
    device = reader.device
    batches = batch_order(
        [len(episode.ids) for episode in episodes],
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=seed,
    )

    def kl_at(step: int) -> float:
        return soft.weight_at(step, len(batches)) if soft else 0.0

    def of_labels(module: nn.Module, numbers: NDArray[np.int64], step: int) -> Tensor:
        losses = []
        for group in by_words(episodes, numbers.tolist()):
            chosen = [episodes[number] for number in group]
            scores = module(episode_batch(chosen, device), over)
            value = ce * cross_entropy(scores, _gold(chosen, over, device))
            if soft and (kl := kl_at(step)):
                taught = np.concatenate([soft.targets[number] for number in group])
                teacher = torch.from_numpy(taught).float().to(device)
                value = value + kl * kl_to_teacher(scores, teacher, temperature=soft.temperature)
            reads = [len(episode.reads) for episode in chosen]
            losses += [part.mean() for part in torch.split(value, reads)]
        return torch.stack(losses)

    terms: list[Loss] = [of_labels]
    if text:
        taught_by = TextTeacher(text.teacher, kl_at, soft.temperature) if soft and text.teacher else None
        terms.append(
            text_loss(text.blocks, weight=text.weight, seed=seed, device=device, ce=ce, teacher=taught_by)
        )
    # The order of a step's episodes differs from term to term; only their sum counts.
    return train(
        reader,
        lambda module, numbers, step: torch.stack([term(module, numbers, step) for term in terms]).sum(0),
        batches=batches,
        settings=settings,
        checkpoint_folder=checkpoint_folder,
        description=description,
    )


def _gold(episodes: Sequence[Episode], over: Over, device: torch.device) -> Tensor:
    """Classes [R] of the true labels at all reads: labels, or their first tokens."""
    classes = [
        episode.words[label][0] if over == "vocabulary" else label
        for episode in episodes
        for label in episode.gold
    ]
    return torch.tensor(classes, device=device)


@torch.inference_mode()
def episode_scores(
    reader: LabelReader,
    episodes: Sequence[Episode],
    *,
    over: Over,
    advance: Callable[[int], None] = lambda _: None,
) -> list[NDArray[np.float32]]:
    """Log-probabilities [reads, L] (or [reads, V]) of each episode, in their order."""
    scores: dict[int, NDArray[np.float32]] = {}
    for group in by_words(episodes, range(len(episodes))):
        # The longest first, so that a pass that takes too much memory does so at once.
        group.sort(key=lambda number: len(episodes[number].ids), reverse=True)
        size = max(1, PASS_TOKENS // len(episodes[group[0]].ids))
        for start in range(0, len(group), size):
            chosen = [episodes[number] for number in group[start : start + size]]
            said = reader(episode_batch(chosen, reader.device), over).cpu().numpy()
            ends = np.cumsum([len(episode.reads) for episode in chosen])[:-1]
            scores |= zip(group[start : start + size], np.split(said, ends), strict=True)
            advance(len(chosen))
    return [scores[number] for number in range(len(episodes))]
