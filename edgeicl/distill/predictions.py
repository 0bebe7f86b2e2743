"""Predicted labels of every method on every evaluation set.

Predictions are small and models are not: what is stored is the label index of each example.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgeicl.distill.checkpoint import is_kept, keep_file
from edgeicl.distill.evaluate import DataName, accuracy_row
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.prefix_cache import Before
from edgeicl.distill.scoring import score_queries
from edgeicl.distill.shards import parts_of, score_shards, shards_of
from edgeicl.progress import track
from edgeicl.specs.measurement import AccuracyRow
from edgeicl.store import ALONE, Workers
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

log = logging.getLogger(__name__)

PREDICTIONS = "predictions.safetensors"

Predictions = dict[str, NDArray[Any]]
"""Label indices [N] by `METHOD/DATA/RUN`, the run being a demonstration set or `ONLY`."""

ONLY = "only"
"""The run of a method that no demonstration set has a part in."""


class Predictor:
    """Predicts the labels of the evaluation data with any model after any context."""

    def __init__(self, encoder: PromptEncoder, evaluation: Mapping[DataName, Sequence[Example]]) -> None:
        self.encoder = encoder
        self._sizes = {data: len(examples) for data, examples in evaluation.items()}
        self.queries = [query for examples in evaluation.values() for query in encoder.queries(examples)]

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
        tokens = list(self.encoder.tokens.values())
        # One without demonstrations has a single run.
        title = f"evaluating {method}" + f", {run}" * (run != ONLY)
        if kept is None:
            with track(title, len(self.queries)) as advance:
                scores = score_queries(reader, self.queries, tokens, before=before, advance=advance)
        else:
            folder = kept / method
            score_shards(
                lambda: reader,
                self.queries,
                tokens,
                contexts={run: before},
                over="verbalizers",
                stored=np.float32,
                kept=folder,
                workers=workers,
                description=title,
            )
            if not workers.is_writer:
                return {}
            parts = parts_of(folder, shards_of([run], len(self.queries)))[run]
            scores = np.concatenate([load_file(part.file)[part.name] for part in parts])
        ends = list(accumulate(self._sizes.values()))
        by_data = np.split(scores.argmax(-1), ends[:-1])
        return {f"{method}/{data}/{run}": found for data, found in zip(self._sizes, by_data, strict=True)}


def remembered(path: Path, make: Callable[[], Predictions]) -> Predictions:
    """What `make` returns, or what an earlier run, killed since, left of it at `path`."""
    if not is_kept(path):
        keep_predictions(path, make())
    return read_predictions(path)


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


def accuracy_rows(
    methods: Iterable[str],
    predictions: Predictions,
    evaluation: Mapping[DataName, Sequence[Example]],
    encoder: PromptEncoder,
    *,
    runs: Sequence[str],
) -> tuple[AccuracyRow, ...]:
    """A row for each method and evaluation set that there are predictions for; methods and runs as ordered."""
    rows = []
    for method in methods:
        for data, examples in evaluation.items():
            names = [f"{method}/{data}/{run}" for run in runs]
            found = [predictions[name] for name in names if name in predictions]
            if found:
                gold = encoder.label_indices(examples)
                rows.append(accuracy_row(method, data, found, gold, encoder.labels))
    return tuple(rows)
