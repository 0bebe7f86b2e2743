from __future__ import annotations

import pytest

from edgeicl.distill.task_data import Leakage, TaskData, deal
from edgeicl.errors import DataError
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import shared_columns

LABELS = ("yes", "no")


def examples(count: int, first: int = 0) -> list[Example]:
    return [Example({"text": f"text {first + n}"}, LABELS[n % 2]) for n in range(count)]


def dealt(
    train: list[Example],
    evaluation: list[Example],
    *,
    transfer: int = 20,
    seed: int = 0,
    leakage: Leakage = "refuse",
    shown_from: dict[int, list[Example]] | None = None,
) -> TaskData:
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
        leakage=leakage,
        shown_from=shown_from,
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
    data = dealt(examples(60), examples(10), leakage="drop")
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


def test_training_texts_in_the_evaluation_are_refused_whatever_their_case_spaces_and_forms() -> None:
    disguised = [Example({"text": "\ufb01rst  \tTEXT"}, "yes", "eval.csv line 2")]  # the ligature of f and i
    train = [*examples(60), Example({"text": "First text"}, "no", "train.csv line 9")]
    message = (
        r"task\.train: 1 of 61 texts are in the evaluation data too, first train\.csv line 9 "
        r"\(evaluation: eval\.csv line 2\).*\nnext: .*distill\.leakage: drop"
    )
    with pytest.raises(DataError, match=message):
        dealt(train, disguised)
    assert dealt(train, [Example({"text": "first texts"}, "yes")]).deviations == ()


def test_demonstrations_of_their_own_files() -> None:
    sources = {seed: examples(8, first=1000 + 8 * seed) for seed in (0, 1, 2)}
    # One of them is in the pool too: it is shown, so nothing is transferred on it.
    data = dealt([*examples(30), *sources[1]], [], transfer=1000, shown_from=sources)
    assert all(texts(data.demonstrations[seed]) <= texts(sources[seed]) for seed in sources)
    assert not texts(data.scored) & texts(data.demonstrations[1])
    assert len(data.scored) == 34

    with pytest.raises(DataError, match=r"demonstrations\.source, seed 2: 1 of 8 texts are in the eval"):
        dealt(examples(30), examples(1, first=1016), shown_from=sources)
    dropped = dealt(examples(30), examples(1, first=1016), shown_from=sources, leakage="drop")
    assert "text 1016" not in texts(dropped.demonstrations[2])
    assert "distill.demonstrations.source, seed 2" in {found.where for found in dropped.deviations}


def test_columns_that_are_shared_are_told_and_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    train = [Example({"premise": f"p{n}", "hypothesis": f"h{n}"}, LABELS[n % 2]) for n in range(30)]
    evaluation = [Example({"premise": "P3 ", "hypothesis": "other"}, "yes")]
    pattern = "{premise} {hypothesis}"
    assert shared_columns(pattern, train, evaluation) == {"premise": 1}
    data = deal(
        train,
        evaluation,
        pattern=pattern,
        labels=LABELS,
        demonstrations=2,
        balanced=True,
        demonstration_seeds=[0],
        transfer_examples=28,
        seed=0,
    )
    assert data.deviations == ()
    assert "1 of 30 transfer examples and demonstrations have the premise of an evaluation" in caplog.text
