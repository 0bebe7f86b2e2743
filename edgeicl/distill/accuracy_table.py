"""The table of methods: a row of accuracy for each, and one of them tested against all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgeicl.distill.evaluate import TABLE_ORDER, DataName, accuracy_row, paired_test
from edgeicl.distill.predictions import RANK, Predictions
from edgeicl.specs.measurement import AccuracyRow, Evaluation, PairedTest
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder


def accuracy_table(
    method: str,
    predictions: Predictions,
    evaluation: Mapping[DataName, Sequence[Example]],
    encoder: PromptEncoder,
    *,
    runs: Sequence[str],
) -> Evaluation:
    """All methods that there are predictions for, in the order of tables, and `method` tested against each."""
    found = (TABLE_ORDER, predictions, evaluation, encoder)
    return Evaluation(
        rows=accuracy_rows(*found, runs=runs), paired_tests=paired_tests_against(method, *found, runs=runs)
    )


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
