from __future__ import annotations

import pytest

from edgeicl.distill.meta_kd.domains import by_column, check_evaluated_domain, deal_domains
from edgeicl.errors import DataError
from edgeicl.tasks.example import Example


def example(text: str, genre: str, label: str = "entailment") -> Example:
    return Example({"text": text, "genre": genre}, label, f"row {text}")


TRAIN = [
    example("a", "travel"),
    example("b", "fiction"),
    example("c", "travel"),
    example("d", "letters"),
    example("e", "fiction"),
]


def test_domains_of_a_column_begin_with_the_students() -> None:
    found = by_column(TRAIN, "genre", "travel")
    assert list(found) == ["travel", "fiction", "letters"]
    assert [one.columns["text"] for one in found["fiction"]] == ["b", "e"]


def test_what_a_column_can_lack() -> None:
    with pytest.raises(DataError, match=r"row a: found no column 'gnre'; did you mean 'genre'\?"):
        by_column(TRAIN, "gnre", "travel")
    with pytest.raises(DataError, match=r"no example of the domain 'travl' .* did you mean 'travel'\?"):
        by_column(TRAIN, "genre", "travl")
    with pytest.raises(DataError, match="no other domain than 'travel'"):
        by_column(TRAIN[:1], "genre", "travel")


def test_evaluation_data_of_other_domains_is_refused() -> None:
    with pytest.raises(DataError, match="found the domains fiction, letters; expected 'travel' alone") as found:
        check_evaluated_domain(TRAIN, "genre", "travel")
    assert found.value.next_step == "add `where: {genre: travel}` to task.in_domain"
    check_evaluated_domain([TRAIN[0], Example({"text": "x"}, "entailment")], "genre", "travel")


def dealt(**changed: object):  # type: ignore[no-untyped-def]
    arguments = {"pattern": "{text}?", "own_examples": None, "seed": 0} | changed
    return deal_domains(by_column(TRAIN, "genre", "fiction"), [], **arguments)  # type: ignore[arg-type]


def test_the_students_examples_come_first() -> None:
    data = dealt()
    assert data.names == ("fiction", "letters", "travel")
    assert [one.columns["text"] for one in data.examples] == ["b", "e", "d", "a", "c"]
    assert data.domains.tolist() == [0, 0, 1, 2, 2]
    assert data.own == 2
    assert data.deviations == ()


def test_the_students_domain_alone_is_made_scarce_and_always_alike() -> None:
    drawn = [dealt(own_examples=1, seed=seed) for seed in range(8)]
    assert {data.own for data in drawn} == {1}
    assert {len(data.examples) for data in drawn} == {4}
    assert {data.examples[0].columns["text"] for data in drawn} == {"b", "e"}
    assert dealt(own_examples=1, seed=3).digest == drawn[3].digest
    (deviation,) = dealt(own_examples=9).deviations
    assert (deviation.asked, deviation.got) == ("9", "2")


def test_texts_count_once_for_the_first_domain_that_has_them() -> None:
    domains = {
        "fiction": [example("a", "fiction"), example("a", "fiction"), example("b", "fiction")],
        "travel": [example("b", "travel"), example("c", "travel"), example("d", "travel")],
    }
    data = deal_domains(domains, [], pattern="{text}?", own_examples=None, seed=0)
    assert [one.columns["text"] for one in data.examples] == ["a", "b", "c", "d"]
    (deviation,) = data.deviations
    assert (deviation.where, deviation.asked, deviation.got) == ("domain travel", "3", "2")
    assert deviation.why == "1 texts are in another domain too"
    with pytest.raises(DataError, match="domain travel: found no example that isn't in the evaluation data or"):
        deal_domains(domains | {"travel": domains["fiction"]}, [], pattern="{text}?", own_examples=None, seed=0)


def test_evaluated_texts_are_refused_or_left_out_and_told() -> None:
    """The same but for case and spaces is the same; another label doesn't make it another text."""
    domains = {"fiction": [example("a", "fiction")], "travel": [example("c", "travel"), example("D  e", "x")]}
    evaluated = [example("d E", "fiction", "contradiction")]
    asked = {"pattern": "{text}?", "own_examples": None, "seed": 0}
    with pytest.raises(DataError, match=r"domain travel: 1 of 2 texts .* first row D  e .*row d E") as found:
        deal_domains(domains, evaluated, **asked)  # type: ignore[arg-type]
    assert "distill.leakage: drop" in str(found.value.next_step)
    data = deal_domains(domains, evaluated, leakage="drop", **asked)  # type: ignore[arg-type]
    assert [one.columns["text"] for one in data.examples] == ["a", "c"]
    (deviation,) = data.deviations
    assert (deviation.where, deviation.asked, deviation.got) == ("domain travel", "2", "1")
    assert deviation.why == "1 texts are in the evaluation data too"


def test_the_digest_tells_domains_apart() -> None:
    texts = [example("a", "x"), example("b", "x"), example("c", "x")]
    cut = [
        deal_domains({"x": texts[:at], "y": texts[at:]}, [], pattern="{text}?", own_examples=None, seed=0)
        for at in (1, 2)
    ]
    assert cut[0].examples == cut[1].examples
    assert cut[0].digest != cut[1].digest
