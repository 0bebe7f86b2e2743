"""One student, distilled from one demonstration set's teacher targets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.distill.adapter import AdapterKind, adapted
from edgeicl.distill.label_reader import LabelReader, Over, Score
from edgeicl.distill.label_training import train_on_labels
from edgeicl.distill.objective import distillation_loss, kl_to_teacher
from edgeicl.distill.scoring import score_queries
from edgeicl.distill.trainer import Loss, TrainingSettings
from edgeicl.errors import EdgeiclError
from edgeicl.models.loading import load_model, save_model
from edgeicl.specs.manifest import Deviation
from edgeicl.store import CHECKPOINT
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

RECORD = "distillation.json"
MODEL = "model"
"""Folder of the student (in the hub's layout) inside its stage output."""


def build_student(
    folder: Path,
    source_folder: Path,
    encoder: PromptEncoder,
    *,
    transfer: Sequence[Example],
    held_out: Sequence[Example],
    targets: NDArray[Any],
    over: Over,
    kl: float,
    ce: float,
    temperature: float,
    settings: TrainingSettings,
    seed: int,
    device: torch.device,
    is_writer: bool,
    description: str,
    score: Score = "sum",
    adapter: AdapterKind = "none",
    rank: int = 8,
    alpha: int = 16,
    target_modules: Sequence[str] = (),
    further_terms: Callable[[LabelReader], Sequence[Loss]] = lambda _: (),
) -> None:
    """Distills the model in `source_folder` and writes it, its losses and its held-out KL into `folder`.

    `targets` are the teacher's log-probabilities for `transfer`, then for `held_out`. For the adapter's options
    see `adapter.adapted`, for `further_terms` (of the student) `distill_student`.
    """
    reader = LabelReader(load_model(source_folder, device=device), score=score)
    tokens = list(encoder.tokens.values())
    with adapted(reader.model, adapter, rank=rank, alpha=alpha, target_modules=target_modules, seed=seed):
        losses = distill_student(
            reader,
            rows=encoder.prompts(transfer),
            tokens=tokens,
            targets=targets[: len(transfer)],
            gold=encoder.label_indices(transfer),
            over=over,
            kl=kl,
            ce=ce,
            temperature=temperature,
            further=further_terms(reader),
            settings=settings,
            seed=seed,
            checkpoint_folder=folder / CHECKPOINT,
            description=description,
        )
    if is_writer:
        record = {
            "held_out_kl": mean_kl(
                reader,
                rows=encoder.prompts(held_out),
                tokens=tokens,
                targets=targets[len(transfer) :],
                over=over,
            ),
            "losses": losses,
        }
        save_model(reader.model, source_folder, folder / MODEL)
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def read_held_out_kl(folder: Path) -> float:
    """Of a student that `build_student` wrote: mean KL to its teacher targets on held-out examples."""
    return float(json.loads((folder / RECORD).read_text())["held_out_kl"])


def best_student(divergences: Mapping[int, float]) -> tuple[int, tuple[Deviation, ...]]:
    """The demonstration seed with the lowest held-out KL, and a deviation for each student that diverged.

    Raises:
        EdgeiclError: all of them have.
    """
    finite = {seed: value for seed, value in divergences.items() if math.isfinite(value)}
    if not finite:
        raise EdgeiclError(
            f"training diverged under every demonstration seed; found the held-out KL {dict(divergences)}, "
            "expected a finite one",
            next_step="lower distill.training.learning_rate, or raise distill.training.warmup_ratio",
        )
    diverged = tuple(
        Deviation(
            what="student",
            where=f"demonstration seed {seed}",
            asked="a student to choose from",
            got=f"a held-out KL of {value}",
            why="its training diverged",
        )
        for seed, value in divergences.items()
        if seed not in finite
    )
    return min(finite, key=lambda seed: (finite[seed], seed)), diverged


def distill_student(
    reader: LabelReader,
    *,
    rows: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    targets: NDArray[Any],
    gold: NDArray[np.int64],
    over: Over,
    kl: float,
    ce: float,
    temperature: float,
    further: Sequence[Loss] = (),
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | None,
    description: str = "distilling",
) -> list[float]:
    """Context distillation (arXiv 2412.13243): trains in place on prompts without demonstrations.

    Args:
        rows: Prompts without demonstrations, as token ids.
        targets: The teacher's log-probabilities with demonstrations, [N, L] or [N, V]: see `over`.
        gold: Label indices [N], read only where `ce` is above 0.
        further: Terms that are added to the loss, of the indices of examples in `rows`. Labels are not read at
            all where `kl` and `ce` are 0.

    Returns:
        The loss of every step.
    """
    teacher = torch.from_numpy(targets).to(reader.device)
    first_tokens = np.array([word[0] for word in tokens])
    answers = torch.from_numpy(first_tokens[gold] if over == "vocabulary" else gold).to(reader.device)

    def loss(student: Tensor, indices: Tensor) -> Tensor:
        return distillation_loss(
            student, teacher[indices].float(), answers[indices], kl=kl, ce=ce, temperature=temperature
        )

    return train_on_labels(
        reader,
        rows=rows,
        tokens=tokens,
        over=over,
        loss=loss if kl or ce else None,
        further=further,
        settings=settings,
        seed=seed,
        checkpoint_folder=checkpoint_folder,
        description=description,
    )


def mean_kl(
    reader: LabelReader,
    *,
    rows: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    targets: NDArray[Any],
    over: Over,
) -> float:
    """Mean KL(teacher || student) in nats over `rows`, at temperature 1."""
    student = torch.from_numpy(score_queries(reader, rows, tokens, before=(), over=over))
    return float(kl_to_teacher(student, torch.from_numpy(targets).float()).mean())
