"""What a tuned task must not hold: evaluation texts, or the target's question in other words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tokenizers import Tokenizer

from edgeicl.distill.icl_data import Shown, deal_meta, deal_multitask
from edgeicl.distill.tuned_tasks import TunedTask, refuse_the_same_question, without_texts
from edgeicl.errors import DataError
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import by_columns
from edgeicl.tasks.prompt import PromptEncoder

SHOWN = Shown(count=4, balanced=True, seeds=(0, 1), votes=3)


def task(
    tokenizer: Tokenizer,
    *,
    name: str = "a",
    pattern: str = "{one} and {two}",
    words: tuple[str, str] = ("yes", "no"),
    every: int = 2,
    count: int = 60,
) -> TunedTask:
    """Labels alternate with every `every` examples."""
    encoder = PromptEncoder(
        tokenizer, pattern=pattern, verbalizers={word: word for word in words}, separator=" "
    )
    examples = tuple(
        Example({"one": f"one {n}", "two": f"two {n}"}, words[n // every % 2]) for n in range(count)
    )
    return TunedTask(name, encoder, examples)


def test_evaluation_texts_are_left_out_whatever_the_pattern(tokenizer: Tokenizer) -> None:
    other = task(tokenizer, pattern="{two}, so {one}?")
    evaluated = by_columns("{one} and {two}", other.examples[:5])
    kept, (deviation,) = without_texts(other, evaluated)
    assert kept.examples == other.examples[5:]
    assert (deviation.asked, deviation.got) == ("60", "55")
    assert without_texts(other, {}) == (other, ())
    twice = TunedTask(other.where, other.encoder, other.examples * 2)
    assert without_texts(twice, {}) == (other, ())


def test_texts_are_the_same_but_for_case_spaces_and_forms_of_characters(tokenizer: Tokenizer) -> None:
    plain = task(tokenizer)
    columns = {"one": " ONE  ０ ", "two": "Two\t0"}
    kept, (deviation,) = without_texts(plain, by_columns("{one} {two}", [Example(columns, "yes")]))
    assert kept.examples == plain.examples[1:]
    assert (deviation.asked, deviation.got) == ("60", "59")


def test_leakage_is_refused_where_it_is_to_be(tokenizer: Tokenizer) -> None:
    own = task(tokenizer, name="task.train")
    with pytest.raises(DataError, match=r"task.train: 5 of 60 texts are in the evaluation data too"):
        without_texts(own, by_columns("{one} and {two}", own.examples[:5]), leakage="refuse")
    assert without_texts(own, {}, leakage="refuse") == (own, ())


def test_a_question_is_the_same_by_other_words_and_in_another_order(tokenizer: Tokenizer) -> None:
    target = task(tokenizer)
    swapped = task(tokenizer, name="swapped", words=("B", "A"), pattern="{two}: {one}")
    with pytest.raises(DataError, match=r"swapped asks what the target task asks: all 60 texts .*alike"):
        refuse_the_same_question(swapped, target)
    refuse_the_same_question(task(tokenizer, every=3), target)  # another question of the same texts
    refuse_the_same_question(task(tokenizer, count=19), target)  # too few to tell


def test_a_question_that_is_finer_is_another(tokenizer: Tokenizer) -> None:
    """Three labels that two of the target's come from: demonstrations must tell which go together."""
    target = task(tokenizer)
    labels = ["no" if one.label == "no" else ("a", "b")[n % 2] for n, one in enumerate(target.examples)]
    finer = tuple(Example(one.columns, label) for one, label in zip(target.examples, labels, strict=True))
    refuse_the_same_question(TunedTask("finer", target.encoder, finer), target)


def test_meta_tunes_on_other_tasks_alone(tokenizer: Tokenizer) -> None:
    target, other = task(tokenizer), task(tokenizer, name="b", every=3)
    data = deal_meta(target, [other], SHOWN, seed=0)
    assert data.tuned == (other,)
    assert set(data.shown) == {0, 1}
    shown = [one for several in data.shown.values() for sets in several for one in sets]
    assert len(shown) == 2 * 3 * 4
    assert not {one.columns["one"] for one in shown} & {one.columns["one"] for one in data.measured}
    assert len({str(sets) for several in data.shown.values() for sets in several}) == 6
    with pytest.raises(DataError, match="asks what the target task asks"):
        deal_meta(target, [other, task(tokenizer, name="c")], SHOWN, seed=0)


def test_demonstrations_come_from_the_source_of_their_seed(tokenizer: Tokenizer) -> None:
    """And no text of theirs is measured on, wherever else it stands."""
    target, other = task(tokenizer), task(tokenizer, name="b", every=3)
    of_seed = TunedTask("source", target.encoder, tuple(replace(one) for one in target.examples[:12]))
    data = deal_meta(target, [other], SHOWN, sources={1: of_seed}, seed=0)
    shown = {one.columns["one"] for sets in data.shown[1] for one in sets}
    assert shown <= {one.columns["one"] for one in of_seed.examples}
    assert not shown & {one.columns["one"] for one in data.measured}


def test_multitask_sees_a_few_examples_of_each_and_shows_no_others(tokenizer: Tokenizer) -> None:
    target, other = task(tokenizer), task(tokenizer, name="b", every=3)
    data = deal_multitask(target, [other], SHOWN, train_examples=8, dev_examples=10, seed=0)
    assert [len(one.examples) for one in data.tuned] == [8, 8]
    few = {one.columns["one"] for one in data.tuned[0].examples}
    shown = {one.columns["one"] for several in data.shown.values() for sets in several for one in sets}
    measured = {one.columns["one"] for one in data.measured}
    assert shown <= few
    assert len(measured) == 10
    assert not measured & few
    with pytest.raises(DataError, match="all 8 usable examples are shown"):
        deal_multitask(task(tokenizer, count=8), [other], SHOWN, train_examples=8, dev_examples=10, seed=0)
