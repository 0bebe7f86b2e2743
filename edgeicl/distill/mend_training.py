"""The two trainings of MEND's hypernetwork; the language model is frozen in both (arXiv 2403.06914, section 3).

Only the hypernetwork, its placeholders and its projection learn. The teacher is the frozen model itself with
the whole demonstrations in its context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeicl.distill.frozen_reading import Places, Query, after_tokens, after_vectors, query_batch
from edgeicl.distill.hypernetwork import Hypernetwork
from edgeicl.distill.mend_objective import distillation_term, label_term
from edgeicl.distill.meta_training import Episode
from edgeicl.distill.trainer import TrainingSettings, train
from edgeicl.distill.training_plan import batch_order

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def train_on_text(
    hypernetwork: Hypernetwork,
    language_model: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    *,
    context_share: float,
    steps: int,
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | None = None,
) -> list[float]:
    """Meta-distillation pretraining: the start of a text is compressed, and the rest expected after it.

    Args:
        texts: Token ids of each text, of at least two tokens.
        context_share: Of a text's tokens, how many are compressed: 0.8 in the paper.

    Returns:
        The loss of every step: KL over all places of the rest.
    """

    def episode(index: int) -> Episode:
        text = texts[index]
        cut = min(len(text) - 1, max(1, round(context_share * len(text))))
        return Episode(list(text[:cut]), [Query(tuple(text[cut:]))])

    lengths = [len(text) for text in texts]
    epochs = -(-steps // -(-len(texts) // settings.batch_size))
    order = batch_order(lengths, batch_size=settings.batch_size, epochs=epochs, seed=seed)
    return _train(
        hypernetwork,
        language_model,
        episode,
        batches=order[:steps],
        kl=1.0,
        ce=0.0,
        places="query",
        settings=settings,
        checkpoint_folder=checkpoint_folder,
        description="learning to compress text",
    )


def train_on_tasks(
    hypernetwork: Hypernetwork,
    language_model: PreTrainedModel,
    episode: Callable[[int], Episode],
    *,
    kl: float,
    places: Places,
    steps: int,
    settings: TrainingSettings,
    checkpoint_folder: Path | None = None,
) -> list[float]:
    """Meta-distillation fine-tuning: cross-entropy of the labels plus `kl` times the KL over `places`.

    Args:
        episode: The episode of each number, always the same; `settings.batch_size` of them make a step.

    Returns:
        The loss of every step.
    """
    return _train(
        hypernetwork,
        language_model,
        episode,
        batches=list(np.arange(steps * settings.batch_size).reshape(steps, -1)),
        kl=kl,
        ce=1.0,
        places=places,
        settings=settings,
        checkpoint_folder=checkpoint_folder,
        description="learning to compress demonstrations",
    )


def mend_loss(
    vectors: Tensor,
    language_model: PreTrainedModel,
    episodes: Sequence[Episode],
    *,
    kl: float,
    ce: float,
    places: Places,
) -> Tensor:
    """ce * cross-entropy + kl * KL of each of S episodes with as many queries each, from vectors [S, l, H]."""
    queries = [query for episode in episodes for query in episode.queries]
    batch = query_batch(queries, places, vectors.device)
    student = after_vectors(language_model, vectors, batch)
    loss = vectors.new_zeros(len(episodes))
    if ce:
        loss = loss + ce * label_term(student, batch, sets=len(episodes))
    if kl:
        teacher = after_tokens(language_model, [episode.context for episode in episodes], batch)
        loss = loss + kl * distillation_term(student, teacher, batch, sets=len(episodes))
    return loss


def _train(
    hypernetwork: Hypernetwork,
    language_model: PreTrainedModel,
    episode: Callable[[int], Episode],
    *,
    batches: Sequence[NDArray[np.int64]],
    kl: float,
    ce: float,
    places: Places,
    settings: TrainingSettings,
    checkpoint_folder: Path | None,
    description: str,
) -> list[float]:
    language_model.requires_grad_(False)

    def loss(module: nn.Module, indices: NDArray[np.int64], step: int) -> Tensor:
        episodes = [episode(int(index)) for index in indices]
        vectors = module([one.context for one in episodes])
        return mend_loss(vectors, language_model, episodes, kl=kl, ce=ce, places=places)

    return train(
        hypernetwork,
        loss,
        batches=batches,
        settings=settings,
        checkpoint_folder=checkpoint_folder,
        description=description,
    )
