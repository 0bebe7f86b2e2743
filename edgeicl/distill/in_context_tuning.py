"""In-context tuning, with a teacher or without: demonstrations and query in, the query's label out.

Without a teacher it is that of Chen et al. (arXiv 2110.07814), with one in-context learning distillation
(arXiv 2212.10670): the cross-entropy with the true label (hard loss) plus the divergence from what the teacher
says after the same demonstrations (soft loss), and, where text is given, both losses of its next tokens too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeicl.distill.label_batch import LabelBatch
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.objective import cross_entropy, kl_to_teacher
from edgeicl.distill.text_loss import text_loss
from edgeicl.distill.trainer import TrainingSettings, train
from edgeicl.distill.training_plan import batch_order
from edgeicl.distill.tuning_episodes import Episode, by_words, episode_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Tokens of padded episodes in a pass where nothing is trained.
_PASS_TOKENS = 8192


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
    """Plain text to model beside the episodes: blocks [N, T] of token ids, a random one with each episode.

    Its next tokens have the hard and the soft loss that labels have, times `weight`. The teacher reads each
    block when the student does, for its probabilities of every token would fill a disk.
    """

    blocks: NDArray[np.int64]
    weight: float
    teacher: PreTrainedModel

    def blocks_beside(self, episodes: NDArray[np.int64], step: int, seed: int) -> Tensor:
        """A block [T] for each of the step's episodes, the same on any number of processes."""
        drawn = [
            np.random.default_rng([seed, step, int(number)]).integers(len(self.blocks)) for number in episodes
        ]
        return torch.from_numpy(self.blocks[drawn])

    @torch.no_grad()
    def taught(self, blocks: Tensor) -> Tensor:
        """The teacher's logits [B, T, V]."""
        logits: Tensor = self.teacher(input_ids=blocks, use_cache=False).logits
        return logits


class _Learner(nn.Module):
    """All that a step reads in one call, since on several processes gradients are averaged call by call."""

    def __init__(self, reader: LabelReader) -> None:
        super().__init__()
        self.reader = reader

    def forward(
        self, batches: Sequence[LabelBatch], over: Over, blocks: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        labels = [self.reader(batch, over) for batch in batches]
        text = None if blocks is None else self.reader.model(input_ids=blocks, use_cache=False).logits
        return labels, text


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

    def loss(module: nn.Module, numbers: NDArray[np.int64], step: int) -> Tensor:
        groups = by_words(episodes, numbers.tolist())
        kl = soft.weight_at(step, len(batches)) if soft else 0.0
        temperature = soft.temperature if soft else 1.0
        blocks = text.blocks_beside(numbers, step, seed).to(device) if text else None
        said, said_of_text = module(
            [episode_batch([episodes[number] for number in group], device) for group in groups], over, blocks
        )
        losses = []
        for scores, group in zip(said, groups, strict=True):
            value = ce * cross_entropy(scores, _gold([episodes[number] for number in group], over, device))
            if soft and kl:
                taught = np.concatenate([soft.targets[number] for number in group])
                teacher = torch.from_numpy(taught).float().to(device)
                value = value + kl * kl_to_teacher(scores, teacher, temperature=temperature)
            reads = [len(episodes[number].reads) for number in group]
            losses.append(torch.stack([part.mean() for part in torch.split(value, reads)]))
        of_labels = torch.cat(losses)
        if text is None or blocks is None:
            return of_labels
        of_text = text_loss(
            said_of_text, text.taught(blocks) if kl else None, blocks, kl=kl, ce=ce, temperature=temperature
        )
        return of_labels + text.weight * of_text

    return train(
        _Learner(reader),
        loss,
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
        size = max(1, _PASS_TOKENS // len(episodes[group[0]].ids))
        for start in range(0, len(group), size):
            chosen = [episodes[number] for number in group[start : start + size]]
            said = reader(episode_batch(chosen, reader.device), over).cpu().numpy()
            ends = np.cumsum([len(episode.reads) for episode in chosen])[:-1]
            scores |= zip(group[start : start + size], np.split(said, ends), strict=True)
            advance(len(chosen))
    return [scores[number] for number in range(len(episodes))]
