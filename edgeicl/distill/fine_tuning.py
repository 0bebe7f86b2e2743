"""Pattern-based fine-tuning: the baseline that trains on the demonstrations instead of reading them.

Source: Mosbach et al., 2023 (arXiv 2305.16938), section 3: all weights, cross-entropy over the whole
vocabulary at the label's position, on the same examples that the teacher sees as demonstrations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.label_training import train_on_labels
from edgeicl.distill.objective import cross_entropy
from edgeicl.distill.trainer import TrainingSettings


def fine_tune(
    reader: LabelReader,
    *,
    rows: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    gold: NDArray[np.int64],
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | None = None,
    description: str = "fine-tuning",
) -> list[float]:
    """Trains in place on `rows` with label indices `gold`; returns the loss of every step."""
    answers = torch.from_numpy(gold).to(reader.device)

    def loss(words: Tensor, indices: Tensor) -> Tensor:
        return cross_entropy(words, answers[indices])

    return train_on_labels(
        reader,
        rows=rows,
        tokens=tokens,
        over="words",
        loss=loss,
        settings=settings,
        seed=seed,
        checkpoint_folder=checkpoint_folder,
        description=description,
    )
