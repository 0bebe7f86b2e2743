"""`builtin:nli`: few-shot tasks over one set of texts, told apart only by their demonstrations.

Every task asks the same question with the same label words, but "Yes" means something else in each, so a
model that sees no demonstration can't know which property of the pair is asked for. Texts belong to one
split for good, by their hash: what a model was trained on never appears in an evaluation.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgeicl.tasks import nli_lexicon as lexicon
from edgeicl.tasks.nli_phenomena import IN_DOMAIN, OUT_OF_DOMAIN

DOMAINS = {"in_domain": IN_DOMAIN, "out_of_domain": OUT_OF_DOMAIN}

# Of every 16 texts, by hash: which split they belong to.
_SPLIT_OF_SIXTEENTH = ("train",) * 12 + ("validation",) * 2 + ("test",) * 2
SPLITS = ("train", "validation", "test")

DOMAIN_AND_SPLIT = {
    **{split: ("in_domain", split) for split in SPLITS},
    "out_of_domain": ("out_of_domain", "test"),
    "out_of_domain_train": ("out_of_domain", "train"),
}
"""Split of `builtin:nli` -> the domain of its texts, and the split that their hashes say."""


@dataclass(frozen=True)
class Pair:
    """Premise and hypothesis, with all that a task of the family may ask about them."""

    premise: str
    hypothesis: str
    domain: str
    phenomenon: str
    follows: bool
    subject: str
    verb: str
    time: str


STORY_WORD = "therefore"
"""Stands between the premises and the conclusions of a story: a pretraining text without questions."""

TASKS: dict[str, Callable[[Pair], bool]] = {
    "entailment": lambda pair: pair.follows,
    "doubt": lambda pair: not pair.follows,
    "animal": lambda pair: pair.subject in lexicon.ANIMALS,
    "today": lambda pair: pair.time == "today",
    "action": lambda pair: pair.verb in lexicon.ACTIONS,
}
"""Task name -> whether the answer is "Yes". `doubt` contradicts `entailment` on every pair."""

CUES = {
    "entailment": "entails",
    "doubt": "doubts",
    "animal": "animal",
    "today": "today",
    "action": "action",
}
"""Task name -> the word that names it in a text of pretraining, where demonstrations need not tell."""

MISSES_IN_A_ROW = 200_000
"""So many draws without a new pair, and the split is taken to hold no more."""

YES, NO = "entailment", "contradiction"
"""Label names, as in the MNLI recipes; tasks other than entailment borrow them."""


def split_of(premise: str, hypothesis: str) -> str:
    """The split a text belongs to, for good."""
    digest = hashlib.sha256(f"{premise}\n{hypothesis}".encode()).digest()
    return _SPLIT_OF_SIXTEENTH[digest[0] % 16]


def draw(rng: random.Random, domain: str, follows: bool | None = None) -> Pair:
    """One pair of `domain`, from any split; the label is drawn too unless it is given."""
    phenomena = DOMAINS[domain]
    name = rng.choice(list(phenomena))
    label = rng.random() < 0.5 if follows is None else follows
    draft = phenomena[name](rng, label)
    time = rng.choice(lexicon.TIMES)
    return Pair(
        f"{draft.premise} {time}", draft.hypothesis, domain, name, label, draft.subject, draft.verb, time
    )


def draw_from(rng: random.Random, split: str, domain: str) -> Pair:
    """A pair of one domain that belongs to `split`."""
    while True:
        pair = draw(rng, domain)
        if split_of(pair.premise, pair.hypothesis) == split:
            return pair


def pairs(domain: str, split: str, seed: int) -> Iterator[Pair]:
    """Distinct pairs of one split, the answers to "does it follow" alternating, until no more are found."""
    rng = random.Random(f"{domain}/{split}/{seed}")
    seen: set[tuple[str, str]] = set()
    follows = True
    misses = 0
    while misses < MISSES_IN_A_ROW:
        pair = draw(rng, domain, follows)
        texts = (pair.premise, pair.hypothesis)
        if texts in seen or split_of(*texts) != split:
            misses += 1
            continue
        misses = 0
        seen.add(texts)
        follows = not follows
        yield pair
