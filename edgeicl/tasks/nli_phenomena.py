"""Sentence pairs of the built-in family, one function per phenomenon of entailment.

Each function writes a premise and a hypothesis that either follows from it or does not, as asked. The
in-domain phenomena change words; the out-of-domain ones are of the HANS kind (McCoy et al., 2019): every
word of the hypothesis stands in the premise, so that counting shared words tells nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from edgeicl.tasks import nli_lexicon as lexicon


@dataclass(frozen=True)
class Clause:
    """Who did what to whom: enough to write the hypothesis and to know its properties."""

    subject: str
    verb: str
    patient: str | None = None

    @property
    def predicate(self) -> str:
        return self.verb if self.patient is None else f"{self.verb} the {self.patient}"

    def __str__(self) -> str:
        return f"the {self.subject} {self.predicate}"


@dataclass(frozen=True)
class Draft:
    """A pair before its time word: texts, and the nouns and verb that its properties are read from."""

    premise: str
    hypothesis: str
    subject: str
    verb: str


def _clause(rng: random.Random) -> Clause:
    subject, patient = rng.sample(lexicon.NOUNS, 2)
    if rng.random() < 0.5:
        return Clause(subject, rng.choice(lexicon.INTRANSITIVE))
    return Clause(subject, rng.choice(lexicon.TRANSITIVE), patient)


def _transitive(rng: random.Random) -> tuple[Clause, Clause]:
    """A transitive clause and the one with its roles exchanged."""
    subject, patient = rng.sample(lexicon.NOUNS, 2)
    verb = rng.choice(lexicon.TRANSITIVE)
    return Clause(subject, verb, patient), Clause(patient, verb, subject)


def _third(rng: random.Random, *taken: str | None) -> str:
    return rng.choice([noun for noun in lexicon.NOUNS if noun not in taken])


def _draft(premise: str, hypothesis: str, subject: str, verb: str) -> Draft:
    return Draft(premise, hypothesis, subject, verb)


def hypernym(rng: random.Random, follows: bool) -> Draft:
    """A dog is an animal; an animal need not be a dog."""
    clause = _clause(rng)
    general = f"the {lexicon.HYPERNYM[clause.subject]} {clause.predicate}"
    pair = (str(clause), general) if follows else (general, str(clause))
    return _draft(*pair, clause.subject, clause.verb)


def modifier(rng: random.Random, follows: bool) -> Draft:
    """An adjective may be dropped, never added."""
    clause = _clause(rng)
    described = f"the {rng.choice(lexicon.ADJECTIVES)} {clause.subject} {clause.predicate}"
    pair = (described, str(clause)) if follows else (str(clause), described)
    return _draft(*pair, clause.subject, clause.verb)


def negation(rng: random.Random, follows: bool) -> Draft:
    """`never` must stand on both sides or on neither."""
    clause = _clause(rng)
    denied = rng.random() < 0.5
    texts = {True: f"the {clause.subject} never {clause.predicate}", False: str(clause)}
    return _draft(texts[denied], texts[denied == follows], clause.subject, clause.verb)


def coordination(rng: random.Random, follows: bool) -> Draft:
    """`A and B` did it: each did. `A or B` did it: neither is certain."""
    clause = _clause(rng)
    other = _third(rng, clause.subject, clause.patient)
    pair = [clause.subject, other]
    rng.shuffle(pair)
    word = "and" if follows else "or"
    premise = f"the {pair[0]} {word} the {pair[1]} {clause.predicate}"
    return _draft(premise, str(clause), clause.subject, clause.verb)


def voice(rng: random.Random, follows: bool) -> Draft:
    """Active to passive keeps the roles or exchanges them."""
    clause, reverse = _transitive(rng)
    told = clause if follows else reverse
    hypothesis = f"the {told.patient} was {told.verb} by the {told.subject}"
    return _draft(str(clause), hypothesis, str(told.patient), told.verb)


def place(rng: random.Random, follows: bool) -> Draft:
    """A place may be dropped, not changed."""
    clause = _clause(rng)
    here, elsewhere = rng.sample(lexicon.PLACES, 2)
    hypothesis = str(clause) if follows else f"{clause} in the {elsewhere}"
    return _draft(f"{clause} in the {here}", hypothesis, clause.subject, clause.verb)


def substitution(rng: random.Random, follows: bool) -> Draft:
    """Another noun or another verb is another event."""
    clause = _clause(rng)
    other = clause
    if not follows and rng.random() < 0.5:
        other = Clause(_third(rng, clause.subject, clause.patient), clause.verb, clause.patient)
    elif not follows:
        verbs = lexicon.TRANSITIVE if clause.patient else lexicon.INTRANSITIVE
        other = Clause(clause.subject, rng.choice([v for v in verbs if v != clause.verb]), clause.patient)
    return _draft(str(clause), str(other), other.subject, other.verb)


def role_swap(rng: random.Random, follows: bool) -> Draft:
    """The same words, with subject and object exchanged."""
    clause, reverse = _transitive(rng)
    bystander = _third(rng, clause.subject, clause.patient)
    told = clause if follows else reverse
    premise = f"the {clause.subject} near the {bystander} {clause.predicate}"
    return _draft(premise, str(told), told.subject, told.verb)


def preposition(rng: random.Random, follows: bool) -> Draft:
    """The noun beside the subject did nothing."""
    clause = _clause(rng)
    bystander = _third(rng, clause.subject, clause.patient)
    told = clause if follows else Clause(bystander, clause.verb, clause.patient)
    premise = f"the {clause.subject} near the {bystander} {clause.predicate}"
    return _draft(premise, str(told), told.subject, told.verb)


def relative_clause(rng: random.Random, follows: bool) -> Draft:
    """`the dog that chased the cat rested`: who rested, and who chased whom?"""
    inner, reverse = _transitive(rng)
    verb = rng.choice(lexicon.INTRANSITIVE)
    premise = f"the {inner.subject} that {inner.predicate} {verb}"
    if rng.random() < 0.5:
        told = inner if follows else reverse
    else:
        told = Clause(inner.subject if follows else str(inner.patient), verb)
    return _draft(premise, str(told), told.subject, told.verb)


def coordinated_subject(rng: random.Random, follows: bool) -> Draft:
    """Two subjects, one object: the subjects did nothing to each other."""
    clause, _ = _transitive(rng)
    other = _third(rng, clause.subject, clause.patient)
    pair = [clause.subject, other]
    rng.shuffle(pair)
    told = clause if follows else Clause(pair[0], clause.verb, pair[1])
    premise = f"the {pair[0]} and the {pair[1]} {clause.predicate}"
    return _draft(premise, str(told), told.subject, told.verb)


def passive_premise(rng: random.Random, follows: bool) -> Draft:
    """The first noun of a passive sentence is the one it was done to."""
    clause, reverse = _transitive(rng)
    told = clause if follows else reverse
    premise = f"the {clause.patient} was {clause.verb} by the {clause.subject}"
    return _draft(premise, str(told), told.subject, told.verb)


Phenomenon = Callable[[random.Random, bool], Draft]

IN_DOMAIN: dict[str, Phenomenon] = {
    f.__name__: f for f in (hypernym, modifier, negation, coordination, voice, place, substitution)
}
OUT_OF_DOMAIN: dict[str, Phenomenon] = {
    f.__name__: f for f in (role_swap, preposition, relative_clause, coordinated_subject, passive_premise)
}
