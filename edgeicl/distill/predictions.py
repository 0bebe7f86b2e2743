"""Predicted labels of every method on every evaluation set.

Predictions are small and models are not: what is stored is the label index of each example.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgeicl.distill.channel_scoring import score_prompts
from edgeicl.distill.checkpoint import is_kept, keep_file
from edgeicl.distill.evaluate import DataName, accuracy_row, paired_test
from edgeicl.distill.label_reader import LabelReader
from edgeicl.numerics.classification import rank_of_gold
from edgeicl.progress import track
from edgeicl.specs.measurement import AccuracyRow, PairedTest
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
        self._queries = {data: encoder.queries(examples) for data, examples in evaluation.items()}
        self._gold = {data: encoder.label_indices(examples) for data, examples in evaluation.items()}
        self._allowed = {data: encoder.allowed(examples) for data, examples in evaluation.items()}

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest query."""
        return max(len(query) for queries in self._queries.values() for query in queries)

    def predict(self, reader: LabelReader, method: str, run: str, before: Sequence[int]) -> Predictions:
        """Predictions of one model after the tokens `before`, on all evaluation data."""
        predictions: Predictions = {}
        # One without demonstrations has a single run.
        title = f"evaluating {method}" + f", {run}" * (run != "only")
        with track(title, sum(map(len, self._queries.values()))) as advance:
            for data, queries in self._queries.items():
                scores = score_prompts(reader, self.encoder, queries, before=before, advance=advance)
                scores = np.where(self._allowed[data], scores, -np.inf)
                predictions[f"{method}/{data}/{run}"] = scores.argmax(-1)
                predictions[f"{method}/{data}/{run}{RANK}"] = rank_of_gold(scores, self._gold[data])
        return predictions


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
            found = _runs_of(f"{method}/{data}", predictions, runs)
            if not found:
                continue
            rows.append(
                accuracy_row(
                    method,
                    data,
                    found,
                    encoder.label_indices(examples),
                    encoder.labels,
                    groups=[example.group for example in examples],
                    ranks=_runs_of(f"{method}/{data}", predictions, runs, RANK),
                )
            )
    return tuple(rows)


def paired_tests_against(
    method: str,
    others: Iterable[str],
    predictions: Predictions,
    evaluation: Mapping[DataName, Sequence[Example]],
    encoder: PromptEncoder,
    *,
    runs: Sequence[str],
) -> tuple[PairedTest, ...]:
    """`method` against each of `others` on each evaluation set that there are predictions of both for."""
    tests = []
    for data, examples in evaluation.items():
        gold = encoder.label_indices(examples)
        ours = _runs_of(f"{method}/{data}", predictions, runs)
        for other in others:
            theirs = _runs_of(f"{other}/{data}", predictions, runs)
            if ours and theirs and other != method:
                tests.append(paired_test(method, ours, other, theirs, data=data, gold=gold))
    return tuple(tests)


def _runs_of(name: str, predictions: Predictions, runs: Sequence[str], ending: str = "") -> list[NDArray[Any]]:
    names = [f"{name}/{run}{ending}" for run in runs]
    return [predictions[each] for each in names if each in predictions]
