from __future__ import annotations

import pytest

from edgeicl.distill.task_data import TaskData, deal
from edgeicl.errors import DataError
from edgeicl.tasks.example import Example

LABELS = ("yes", "no")


def examples(count: int, first: int = 0) -> list[Example]:
    return [Example({"text": f"text {first + n}"}, LABELS[n % 2]) for n in range(count)]


def dealt(train: list[Example], evaluation: list[Example], *, transfer: int = 20, seed: int = 0) -> TaskData:
    return deal(
        train,
        evaluation,
        pattern="{text}",
        labels=LABELS,
        demonstrations=4,
        balanced=True,
        demonstration_seeds=[0, 1, 2],
        transfer_examples=transfer,
        seed=seed,
    )


def texts(some: list[Example]) -> set[str]:
    return {example.columns["text"] for example in some}


def test_nothing_overlaps() -> None:
    train, evaluation = examples(60), examples(10, first=100)
    data = dealt(train + train[:5], evaluation)
    shown = set().union(*(texts(demonstrations) for demonstrations in data.demonstrations.values()))
    parts = [shown, texts(data.transfer), texts(data.held_out), texts(evaluation)]
    assert len(set().union(*parts)) == sum(map(len, parts))
    assert (len(data.transfer), len(data.held_out)) == (18, 2)
    assert data.deviations == ()
    assert data.digest == dealt(train + train[:5], evaluation).digest
    assert data.digest != dealt(train, evaluation, seed=1).digest


def test_texts_of_the_evaluation_data_are_left_out_and_told() -> None:
    data = dealt(examples(60), examples(10))
    assert not texts(data.scored) & texts(examples(10))
    (deviation,) = data.deviations
    assert (deviation.asked, deviation.got) == ("60", "50")
    assert "10 texts are in the evaluation data too" in deviation.why


def test_fewer_transfer_examples_than_asked_for_is_told() -> None:
    data = dealt(examples(30), [], transfer=1000)
    (deviation,) = data.deviations
    assert deviation.where == "distill.transfer_examples"
    assert int(deviation.got) == len(data.scored) < 30


def test_none_left_is_an_error() -> None:
    with pytest.raises(
        DataError, match=r"task\.train: 4 usable examples, of which 4 are demonstrations; found 0"
    ):
        dealt(examples(4), [])
