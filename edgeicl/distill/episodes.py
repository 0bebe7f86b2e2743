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

from edgeicl.tasks.nli_family import CUES, STORY_WORD, TASKS, Pair, draw_from

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


def episode_text(
    rng: random.Random, *, task: str, domains: Sequence[str], split: str, named: bool = False
) -> str:
    """One example for each entry of `domains`, each on its own line."""
    examples = (example_text(draw_from(rng, split, domain), task, named=named) for domain in domains)
    return "".join(f"{example}\n" for example in examples)


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
