"""Predictions by majority: several demonstration sets, one answer (arXiv 2212.10670)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.special import softmax

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import Predictions, Predictor
from edgeicl.distill.prefix_cache import Before
from edgeicl.distill.shards import parts_of, score_shards, shards_of
from edgeicl.numerics.classification import rank_of_gold
from edgeicl.numerics.voting import majority_vote
from edgeicl.store import ALONE, Workers

Load = Callable[[], LabelReader]

Sets = Mapping[str, Sequence[Before]]
"""By run, the demonstration sets that vote: what stands before a query."""

SetScores = dict[str, NDArray[np.float32]]
"""By run, log-probabilities [M, N, L] of the labels of N queries after each of M demonstration sets."""


def scores_after(
    load: Load,
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    sets: Sets,
    *,
    kept: Path,
    workers: Workers = ALONE,
    description: str,
) -> SetScores:
    """A model's answers to `queries` after every set; of several processes, the writer gets them.

    What is done is kept below `kept`, for a run that comes after a kill; a model of which nothing is missing is
    not loaded.
    """
    contexts = {f"{run}.{vote}": before for run, several in sets.items() for vote, before in enumerate(several)}
    score_shards(
        load,
        queries,
        tokens,
        contexts=contexts,
        over="verbalizers",
        stored=np.float32,
        kept=kept,
        workers=workers,
        description=description,
    )
    if not workers.is_writer:
        return {}
    parts = parts_of(kept, shards_of(contexts, len(queries)))
    scores = {
        name: np.concatenate([load_file(part.file)[part.name] for part in several])
        for name, several in parts.items()
    }
    return {run: np.stack([scores[f"{run}.{vote}"] for vote in range(len(sets[run]))]) for run in sets}


def voted_predictions(
    predictor: Predictor, load: Load, method: str, sets: Sets, *, kept: Path, workers: Workers = ALONE
) -> Predictions:
    """What a model answers in each run of `method`: the majority of its sets; see `scores_after`.

    A row with options of its own is answered with one of them. Ranks are by the mean probability over sets.
    """
    scores = scores_after(
        load,
        predictor.queries,
        predictor.tokens,
        sets,
        kept=kept / method,
        workers=workers,
        description=f"evaluating {method}",
    )
    predictions: Predictions = {}
    for run, of_run in scores.items():
        shares = softmax(np.where(predictor.allowed, of_run, -np.inf), axis=-1)
        ranks = rank_of_gold(shares.mean(axis=0), predictor.gold)
        predictions |= predictor.by_data(method, run, majority_vote(shares), ranks)
    return predictions
