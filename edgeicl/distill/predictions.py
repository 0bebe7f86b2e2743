"""Predicted labels of every method on every evaluation set.

Predictions are small and models are not: what is stored is the label index of each example.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgeicl.checkpoint import keep_file
from edgeicl.distill.channel_scoring import slices_scorer
from edgeicl.distill.evaluate import DataName
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.prefix_cache import Before
from edgeicl.distill.shards import parts_of, score_shards, shards_of
from edgeicl.numerics.classification import rank_of_gold
from edgeicl.progress import track
from edgeicl.store import ALONE, Workers
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

log = logging.getLogger(__name__)

PREDICTIONS = "predictions.safetensors"

Predictions = dict[str, NDArray[Any]]
"""Label indices [N] by `METHOD/DATA/RUN`, the run being a demonstration set or `ONLY`."""

RANK = "/rank"
"""Behind the name of predictions: the place of each example's gold label among all, from 1."""

ONLY = "only"
"""The run of a method that no demonstration set has a part in."""


class Predictor:
    """Predicts the labels of the evaluation data with any model after any context."""

    def __init__(self, encoder: PromptEncoder, evaluation: Mapping[DataName, Sequence[Example]]) -> None:
        self.encoder = encoder
        self._sizes = {data: len(examples) for data, examples in evaluation.items()}
        everything = [example for examples in evaluation.values() for example in examples]
        self.queries = encoder.queries(everything)
        self.tokens = list(encoder.tokens.values())
        self.gold = encoder.label_indices(everything)
        self.allowed = encoder.allowed(everything)

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest query."""
        return max(map(len, self.queries))

    def predict(
        self,
        reader: LabelReader,
        method: str,
        run: str,
        before: Before,
        *,
        kept: Path | None = None,
        workers: Workers = ALONE,
    ) -> Predictions:
        """Predictions of one model with `before` before each query, on all evaluation data.

        Args:
            kept: Folder for what is done, so that a run after a kill goes on there.
            workers: The processes that share the work; each calls this, and the writer gets the predictions.
                Needs `kept`, a folder that all of them see.
        """
        # One without demonstrations has a single run.
        title = f"evaluating {method}" + f", {run}" * (run != ONLY)
        if kept is None:
            with track(title, len(self.queries)) as advance:
                everything = [(0, len(self.queries))]
                ask = slices_scorer(self.encoder)
                scores = next(
                    ask(reader, self.queries, self.tokens, everything, before=before, advance=advance)
                )
        else:
            folder = kept / method
            score_shards(
                lambda: reader,
                self.queries,
                self.tokens,
                contexts={run: before},
                over="verbalizers",
                stored=np.float32,
                kept=folder,
                workers=workers,
                description=title,
                score=slices_scorer(self.encoder),
            )
            if not workers.is_writer:
                return {}
            parts = parts_of(folder, shards_of([run], len(self.queries)))[run]
            scores = np.concatenate([load_file(part.file)[part.name] for part in parts])
        scores = np.where(self.allowed, scores, -np.inf)
        return self.by_data(method, run, scores.argmax(-1), rank_of_gold(scores, self.gold))

    def by_data(
        self, method: str, run: str, chosen: NDArray[np.int64], ranks: NDArray[np.int64]
    ) -> Predictions:
        """What was chosen for each query, and the rank of its gold label, apart for each evaluation set."""
        ends = list(accumulate(self._sizes.values()))[:-1]
        return {
            f"{method}/{data}/{run}{ending}": found
            for ending, values in (("", chosen), (RANK, ranks))
            for data, found in zip(self._sizes, np.split(values, ends), strict=True)
        }


def keep_predictions(path: Path, predictions: Predictions) -> None:
    """Writes `predictions` for a run that comes after a kill."""
    keep_file(path, lambda beside: write_predictions(beside, predictions))


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes them as int64 by name."""
    save_file({name: values.astype(np.int64) for name, values in predictions.items()}, path)


def read_predictions(path: Path) -> Predictions:
    """What `write_predictions` wrote."""
    predictions: Predictions = load_file(path)
    return predictions
