"""Stories: texts of the built-in family that ask nothing, for language modelling."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from edgeicl.tasks import nli_lexicon as lexicon
from edgeicl.tasks.nli_family import DOMAIN_AND_SPLIT, STORY_WORD, Pair, draw_from

_PREMISES = 3


def stories(split: str, seed: int) -> Iterator[str]:
    """Stories without end, the same for the same seed, from the texts of one split of `builtin:nli`."""
    domain, hashed_split = DOMAIN_AND_SPLIT[split]
    rng = random.Random(f"stories/{split}/{seed}")
    while True:
        yield story_text(rng, domains=[domain] * _PREMISES, split=hashed_split)


def story_text(rng: random.Random, *, domains: Sequence[str], split: str) -> str:
    """A premise for each entry of `domains`, no noun in two of them; then what follows from each, shuffled."""
    pairs: list[Pair] = []
    mentioned: set[str] = set()
    while len(pairs) < len(domains):
        pair = draw_from(rng, split, domains[len(pairs)])
        nouns = set(pair.premise.split()) & set(lexicon.NOUNS)
        if pair.follows and not nouns & mentioned:
            pairs.append(pair)
            mentioned |= nouns
    premises = " ".join(f"{pair.premise}." for pair in pairs)
    rng.shuffle(pairs)
    conclusions = "".join(f" {pair.hypothesis}." for pair in pairs)
    return f"{premises} {STORY_WORD}{conclusions}\n"
