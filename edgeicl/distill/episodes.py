"""Texts that the built-in models are pretrained on: examples of one task, one after the other.

Notation: B texts, T tokens of the longest.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgeicl.tasks import nli_lexicon as lexicon
from edgeicl.tasks.nli_family import CUES, STORY_WORD, TASKS, Pair, draw, split_of

UNNAMED = "so"
"""Stands between premise and hypothesis where the task must be told from the demonstrations."""

PAD_TOKEN = 1


@dataclass(frozen=True)
class Texts:
    """A batch. `answer_mask` is True where the *next* token is a label, or belongs to a conclusion."""

    tokens: NDArray[np.int64]  # [B, T]
    token_mask: NDArray[np.bool_]  # [B, T], False on padding
    answer_mask: NDArray[np.bool_]  # [B, T]


def example_text(pair: Pair, task: str, *, named: bool) -> str:
    """One example with its label, as the built-in recipes write it."""
    between = CUES[task] if named else UNNAMED
    label = "Yes" if TASKS[task](pair) else "No"
    return f"{pair.premise} {between} {pair.hypothesis}? {label}"


def draw_from(rng: random.Random, split: str, domain: str) -> Pair:
    """A pair of one domain that belongs to `split`."""
    while True:
        pair = draw(rng, domain)
        if split_of(pair.premise, pair.hypothesis) == split:
            return pair


def episode_text(
    rng: random.Random, *, task: str, domains: Sequence[str], split: str, named: bool = False
) -> str:
    """One example for each entry of `domains`, each on its own line."""
    examples = (example_text(draw_from(rng, split, domain), task, named=named) for domain in domains)
    return "".join(f"{example}\n" for example in examples)


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


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Texts:
    """Token ids, padded on the right. Answers are found by their words, which stand nowhere else."""
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    ids = {word: int(tokenizer.token_to_id(f"Ġ{word}") or 0) for word in ("Yes", "No", STORY_WORD)}
    tokens = np.full((len(encoded), max(map(len, encoded))), PAD_TOKEN, dtype=np.int64)
    for row, each in enumerate(encoded):
        tokens[row, : len(each)] = each
    is_label = np.isin(tokens, (ids["Yes"], ids["No"]))
    next_token = tokens[:, 1:]
    concludes = np.cumsum(tokens == ids[STORY_WORD], axis=1)[:, :-1] > 0
    answer_mask = np.zeros(tokens.shape, dtype=np.bool_)
    answer_mask[:, :-1] = is_label[:, 1:] | (concludes & (next_token != PAD_TOKEN))
    return Texts(tokens, tokens != PAD_TOKEN, answer_mask)
