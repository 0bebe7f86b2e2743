"""A model that is tuned in context, and what of it stands in a stage's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from edgeicl.distill.in_context_tuning import SoftLoss, TextTerm, tune_in_context
from edgeicl.distill.label_reader import LabelReader, Over, Score
from edgeicl.distill.student import MODEL, RECORD
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.distill.tuning_episodes import Episode
from edgeicl.models.loading import load_model, save_model
from edgeicl.store import CHECKPOINT


def build_tuned(
    folder: Path,
    source_folder: Path,
    episodes: Sequence[Episode],
    *,
    over: Over,
    score: Score,
    ce: float,
    soft: SoftLoss | None = None,
    text: TextTerm | None = None,
    settings: TrainingSettings,
    seed: int,
    device: torch.device,
    is_writer: bool,
    description: str,
) -> None:
    """Tunes the model in `source_folder`; writes it and the loss of every step into `folder`."""
    reader = LabelReader(load_model(source_folder, device=device), score=score)
    losses = tune_in_context(
        reader,
        episodes,
        over=over,
        ce=ce,
        soft=soft,
        text=text,
        settings=settings,
        seed=seed,
        checkpoint_folder=folder / CHECKPOINT,
        description=description,
    )
    if is_writer:
        save_model(reader.model, source_folder, folder / MODEL)
        (folder / RECORD).write_text(json.dumps({"losses": losses}, indent=1) + "\n")
