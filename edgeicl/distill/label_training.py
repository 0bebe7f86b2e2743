"""Trains a model as a classifier, on prompts that end where the label is to be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeicl.distill.label_batch import padded_batch
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.trainer import Loss, TrainingSettings, train
from edgeicl.distill.training_plan import batch_order


def train_on_labels(
    reader: LabelReader,
    *,
    rows: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    over: Over,
    loss: Callable[[Tensor, Tensor], Tensor] | None,
    further: Sequence[Loss] = (),
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | None = None,
    description: str = "training",
) -> list[float]:
    """Trains the reader's model in place and returns the loss of every step; see `trainer.train`.

    Args:
        rows: Token ids of each prompt; the label is read at its last token.
        loss: From log-probabilities (see `Over`) and indices into `rows` to one loss per example; None where
            only what is `further` is minimized, the sum of it.
    """
    device = reader.device

    def at_labels(module: nn.Module, examples: NDArray[np.int64], step: int) -> Tensor:
        assert loss is not None
        batch = padded_batch([rows[index] for index in examples], tokens, device)
        return loss(module(batch, over), torch.from_numpy(examples).to(device))

    terms = ((at_labels,) if loss else ()) + tuple(further)

    def total(module: nn.Module, examples: NDArray[np.int64], step: int) -> Tensor:
        return torch.stack([term(module, examples, step) for term in terms]).sum(0)

    return train(
        reader,
        total,
        batches=batch_order(
            [len(row) for row in rows], batch_size=settings.batch_size, epochs=settings.epochs, seed=seed
        ),
        settings=settings,
        checkpoint_folder=checkpoint_folder,
        description=description,
    )
