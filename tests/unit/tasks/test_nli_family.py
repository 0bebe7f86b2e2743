"""The built-in family, judged by a second implementation: a parser and a little logic of its own."""

from __future__ import annotations

import random
import re
from itertools import islice

import pytest

from edgeicl.tasks import nli_lexicon as lexicon
from edgeicl.tasks.nli_family import DOMAINS, SPLITS, TASKS, Pair, draw, pairs, split_of
from edgeicl.tasks.nli_tokenizer import family_tokenizer

Fact = tuple[str, str, str | None]


def facts(premise: str) -> tuple[set[Fact], dict[str, set[str]], set[str], bool]:
    """What `premise` makes certain: events, adjectives of each noun, places, and whether it is denied."""
    words = premise.split()
    assert words.pop() in lexicon.TIMES
    adjectives: dict[str, set[str]] = {}
    plain = []
    for index, word in enumerate(words):
        if word in lexicon.ADJECTIVES:
            adjectives.setdefault(words[index + 1], set()).add(word)
        else:
            plain.append(word)
    text = " ".join(plain)
    places = set(re.findall(r" in the (\w+)$", text))
    text = re.sub(r" in the \w+$", "", text)
    text = re.sub(r" near the \w+", "", text)
    denied = " never " in text
    text = text.replace(" never ", " ")
    events: set[Fact] = set()
    relative = re.match(r"the (\w+) that (\w+) the (\w+) (\w+)$", text)
    if relative:
        subject, verb, patient, other = relative.groups()
        return {(subject, verb, patient), (subject, other, None)}, adjectives, places, denied
    passive = re.match(r"the (\w+) was (\w+) by the (\w+)$", text)
    if passive:
        return {(passive[3], passive[2], passive[1])}, adjectives, places, denied
    subjects_text, predicate = re.match(r"(the \w+(?: (?:and|or) the \w+)?) (.+)$", text).groups()  # type: ignore[union-attr]
    if " or " in subjects_text:
        return set(), adjectives, places, denied
    verb, *patient = predicate.replace(" the ", " ").split()
    for subject in subjects_text.replace("the ", "").split(" and "):
        events.add((subject, verb, patient[0] if patient else None))
    return events, adjectives, places, denied


def follows(pair: Pair) -> bool:
    """Whether the hypothesis is certain given the premise."""
    known, known_adjectives, known_places, denied = facts(pair.premise)
    asked, adjectives, places, asked_denied = facts(f"{pair.hypothesis} today")
    (event,) = asked
    kinds = {(lexicon.HYPERNYM.get(subject, subject), verb, patient) for subject, verb, patient in known}
    return (
        event in known | kinds
        and all(adjectives[noun] <= known_adjectives.get(noun, set()) for noun in adjectives)
        and places <= known_places
        and denied == asked_denied
    )


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_labels_agree_with_an_independent_reading(domain: str) -> None:
    drawn = list(islice(pairs(domain, "test", seed=3), 1500))
    wrong = [pair for pair in drawn if follows(pair) != pair.follows]
    assert {pair.phenomenon for pair in drawn} == set(DOMAINS[domain])
    assert wrong == []


def test_the_independent_reading_can_disagree() -> None:
    pair = Pair(
        "the dog chased the cat today", "the cat chased the dog", "", "", True, "cat", "chased", "today"
    )
    assert not follows(pair)


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_labels_are_balanced_and_tasks_independent_of_entailment(domain: str) -> None:
    drawn = list(islice(pairs(domain, "train", seed=0), 3000))
    assert sum(pair.follows for pair in drawn) == 1500
    for task in ("animal", "today", "action"):
        agreement = sum(TASKS[task](pair) == pair.follows for pair in drawn) / len(drawn)
        assert 0.45 < agreement < 0.55, task
        assert 0.4 < sum(TASKS[task](pair) for pair in drawn) / len(drawn) < 0.6, task
    assert all(TASKS["doubt"](pair) != TASKS["entailment"](pair) for pair in drawn)


def test_out_of_domain_hypotheses_repeat_their_premises() -> None:
    for pair in islice(pairs("out_of_domain", "test", seed=1), 500):
        assert set(pair.hypothesis.split()) <= set(pair.premise.split())


def test_overlap_alone_does_not_tell_out_of_domain_labels() -> None:
    drawn = list(islice(pairs("out_of_domain", "test", seed=1), 1000))
    shares = {True: 0.0, False: 0.0}
    for pair in drawn:
        shares[pair.follows] += len(pair.hypothesis.split()) / len(pair.premise.split()) / 500
    assert abs(shares[True] - shares[False]) < 0.1


def test_a_text_belongs_to_one_split_and_all_splits_are_found() -> None:
    rng = random.Random(0)
    found = dict.fromkeys(SPLITS, 0)
    for _ in range(4000):
        pair = draw(rng, "in_domain")
        found[split_of(pair.premise, pair.hypothesis)] += 1
    assert found["train"] / 4000 == pytest.approx(12 / 16, abs=0.05)
    assert found["test"] / 4000 == pytest.approx(2 / 16, abs=0.05)
    train = {(p.premise, p.hypothesis) for p in islice(pairs("in_domain", "train", seed=0), 2000)}
    test = {(p.premise, p.hypothesis) for p in islice(pairs("in_domain", "test", seed=0), 1000)}
    assert not train & test
    assert len(test) == 1000


def test_pairs_end_where_a_split_holds_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeicl.tasks.nli_family.MISSES_IN_A_ROW", 1000)
    drawn = list(islice(pairs("out_of_domain", "test", seed=0), 20_000))
    assert 2000 < len(drawn) < 20_000
    assert len({(pair.premise, pair.hypothesis) for pair in drawn}) == len(drawn)


def test_seeds_decide_the_pairs() -> None:
    first, again = (list(islice(pairs("in_domain", "test", seed=5), 20)) for _ in range(2))
    other = list(islice(pairs("in_domain", "test", seed=6), 20))
    assert first == again
    assert first != other


def test_every_word_of_the_family_is_one_token() -> None:
    tokenizer = family_tokenizer()
    for domain in DOMAINS:
        for pair in islice(pairs(domain, "test", seed=2), 300):
            text = f"{pair.premise} so {pair.hypothesis}? Yes"
            words = text.replace("?", " ?").split()
            assert len(tokenizer.encode(text, add_special_tokens=False).ids) == len(words)


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = family_tokenizer()
    text = "Größe 12 — naïve\tcafé 🙂\n the dog"
    encoded = tokenizer.encode(text)
    assert encoded.ids[0] == 2
    assert tokenizer.decode(encoded.ids) == text
