"""The meta-teacher: one classifier for all domains, whose hidden states don't tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgeicl.distill.label_batch import LabelBatch, padded_batch
from edgeicl.distill.meta_kd.domain_head import ConfusionLabels, DomainHead, told_domains
from edgeicl.distill.meta_kd.states import StateReader, mean_state, prompt_mask
from edgeicl.distill.objective import cross_entropy
from edgeicl.distill.trainer import TrainingSettings, train
from edgeicl.distill.training_plan import batch_order


class MetaTeacher(nn.Module):
    """A label reader with a domain head over its hidden states."""

    def __init__(self, reader: StateReader, head: DomainHead, *, skip: int) -> None:
        super().__init__()
        self.reader, self.head, self.skip = reader, head, skip

    def forward(self, batch: LabelBatch, domains: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the labels [B, L] and logits of the domains [B, K]."""
        labels = self.reader(batch, "verbalizers")
        content = mean_state(self.reader.hidden, prompt_mask(batch.passes[0], skip=self.skip))
        return labels, self.head(content, domains)


def meta_teacher_loss(
    labels: Tensor, domain_logits: Tensor, gold: Tensor, told: Tensor, weights: Tensor, *, confusion: float
) -> Tensor:
    """weight * (cross-entropy of the labels + confusion * cross-entropy of the domains that are told), [B]."""
    domain = F.cross_entropy(domain_logits, told, reduction="none")
    return weights * (cross_entropy(labels, gold) + confusion * domain)


def train_meta_teacher(
    reader: StateReader,
    head: DomainHead,
    *,
    rows: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    gold: NDArray[np.int64],
    domains: NDArray[np.int64],
    weights: NDArray[np.float32],
    confusion: float,
    confusion_labels: ConfusionLabels,
    skip: int,
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | None = None,
    description: str = "training the meta-teacher",
) -> list[float]:
    """Trains reader and head in place and returns the loss of every step.

    Args:
        rows: Prompts of all domains; `gold`, `domains` and `weights` [N] are theirs. Weights count against
            each other: they are scaled to a mean of 1.
        skip: Tokens at the start of each prompt that are the same in all, and tell nothing.
    """
    device = reader.device
    answers, relative = torch.from_numpy(gold).to(device), torch.from_numpy(weights / weights.mean()).to(device)
    known = np.unique(domains)
    batches = batch_order(
        [len(row) for row in rows], batch_size=settings.batch_size, epochs=settings.epochs, seed=seed
    )

    def loss(module: nn.Module, examples: NDArray[np.int64], step: int) -> Tensor:
        # Drawn for the whole batch, so that several processes train on what one would.
        whole = batches[step]
        drawn = told_domains(domains[whole], labels=confusion_labels, known=known, seed=(seed, step))
        told = dict(zip(whole.tolist(), drawn.tolist(), strict=True))
        batch = padded_batch([rows[index] for index in examples], tokens, device)
        places = torch.from_numpy(examples).to(device)
        labels, domain_logits = module(batch, torch.from_numpy(domains[examples]).to(device))
        return meta_teacher_loss(
            labels,
            domain_logits,
            answers[places],
            torch.tensor([told[index] for index in examples.tolist()], device=device),
            relative[places],
            confusion=confusion,
        )

    losses = train(
        MetaTeacher(reader, head, skip=skip),
        loss,
        batches=batches,
        settings=settings,
        checkpoint_folder=checkpoint_folder,
        description=description,
    )
    for unseen in set(range(head.classifier.out_features)) - set(known.tolist()):
        head.imagine(unseen)
    return losses
