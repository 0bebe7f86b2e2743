"""Batches of real text for pretraining: plain text, episodes of labelled tasks, episodes of documents.

Labels are words drawn anew for every episode, so that a word means nothing but what the examples before it
say (symbol tuning, Wei et al., 2023, arXiv 2305.08298). Everything is drawn from the step's own seed, so that
a resumed run sees the same batches. Notation: B texts, T tokens of the longest.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgeicl.distill.episodes import PAD_TOKEN, Texts
from edgeicl.errors import DataError
from edgeicl.tasks.prompt import leading_tokens

Ids = NDArray[np.int64]

Queries = Sequence[Sequence[Sequence[int]]]
"""Class -> example -> token ids, the label not included."""

_WORD = re.compile(r"Ġ[a-z]{3,}")
_TEXTS_AT_LEAST = 4
_PASSAGES_AT_LEAST = 4  # in a document that is a class, or its examples are all alike


@dataclass(frozen=True)
class Episode:
    """Examples of one task behind each other; `answers` are the places of their label words."""

    ids: tuple[int, ...]
    answers: tuple[int, ...]
    words: tuple[int, ...]


def label_words(tokenizer: Tokenizer) -> list[int]:
    """The tokens that are a lower-case word after a space, and may stand for a class."""
    return sorted(number for token, number in tokenizer.get_vocab().items() if _WORD.fullmatch(token))


class TextBatches:
    """Draws batches from documents and tasks that are already tokens.

    Args:
        documents: Token ids of each document, without leading tokens.
        pools: The labelled tasks.
        positions: Most tokens of a text.
        around: Ids before and after the passage in an example of a document episode.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        documents: Sequence[NDArray[np.int32]],
        pools: Sequence[Queries],
        *,
        separator: str,
        positions: int,
        around: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        self.leading = leading_tokens(tokenizer)
        self.words = label_words(tokenizer)
        self.separator: list[int] = tokenizer.encode(separator, add_special_tokens=False).ids
        self.pools = list(pools)
        spread = iter(self.words[:: max(1, len(self.words) // max(1, sum(map(len, pools))))])
        self.own_words = [[next(spread) for _ in pool] for pool in pools]
        self.positions = positions
        self.around = around
        self._documents = sorted(documents, key=len, reverse=True)
        self._plain = np.concatenate(
            [part for document in documents for part in (np.array(self.leading, np.int32), document)]
        )

    def plain(self, rng: np.random.Generator, *, tokens_per_step: int, text_tokens: int) -> Texts:
        """Pieces of the documents, as long as asked for."""
        length = min(text_tokens, len(self._plain), self.positions)
        rows = max(1, tokens_per_step // length)
        starts = rng.integers(0, len(self._plain) - length + 1, rows)
        tokens = np.stack([self._plain[start : start + length] for start in starts]).astype(np.int64)
        tokens[:, : len(self.leading)] = self.leading
        everywhere = np.ones(tokens.shape, np.bool_)
        return Texts(tokens, everywhere, ~everywhere)

    def episodes(
        self, rng: np.random.Generator, *, tokens_per_step: int, examples: int, fixed_share: float
    ) -> Texts:
        """Episodes of the labelled tasks, each task as often as any other, with some or all of its classes.

        In `fixed_share` of them a class has its own word, always the same.
        """

        def draw() -> Episode:
            task = int(rng.integers(len(self.pools)))
            queries, own = self.pools[task], self.own_words[task]
            classes = rng.permutation(len(queries))[: int(rng.integers(2, len(queries) + 1))].tolist()
            words = [own[place] for place in classes] if rng.random() < fixed_share else None
            return self.episode(rng, [queries[place] for place in classes], examples, words)

        return self._batch(draw, tokens_per_step)

    def document_episodes(
        self,
        rng: np.random.Generator,
        *,
        tokens_per_step: int,
        examples: int,
        passage_tokens: int,
        classes: int,
    ) -> Texts:
        """Episodes whose classes are documents and whose examples are passages of them."""
        return self._batch(
            lambda: self.episode(rng, self._passages(rng, examples, passage_tokens, classes), examples),
            tokens_per_step,
        )

    def episode(
        self, rng: np.random.Generator, queries: Queries, examples: int, words: Sequence[int] | None = None
    ) -> Episode:
        """`examples` of one task, or as many as there are positions for; words are drawn unless given."""
        if words is None:
            words = [self.words[place] for place in rng.choice(len(self.words), len(queries), replace=False)]
        ids, answers = list(self.leading), []
        for _ in range(examples):
            label = int(rng.integers(len(words)))
            query = queries[label][int(rng.integers(len(queries[label])))]
            if len(ids) + len(query) + 1 > self.positions:
                break
            ids += query
            answers.append(len(ids))
            ids += [words[label], *self.separator]
        return Episode(tuple(ids[: self.positions]), tuple(answers), tuple(words))

    def _passages(self, rng: np.random.Generator, examples: int, tokens: int, classes: int) -> Queries:
        before, after = self.around
        shortest = bisect_right(self._documents, -_PASSAGES_AT_LEAST * tokens, key=lambda one: -len(one))
        long = self._documents[:shortest]
        if len(long) < classes:
            raise DataError(
                f"document episodes need {classes} documents of at least {_PASSAGES_AT_LEAST * tokens} tokens; "
                f"found {len(long)}",
                next_step="lower passage_tokens or document_classes, check the separator of the text, or set "
                "document_share: 0",
            )
        queries: list[Sequence[Sequence[int]]] = []
        for place in rng.choice(len(long), int(rng.integers(2, classes + 1)), replace=False).tolist():
            starts = rng.integers(0, len(long[place]) - tokens + 1, examples)
            passages = (long[place][start : start + tokens].tolist() for start in starts)
            queries.append(tuple((*before, *passage, *after) for passage in passages))
        return queries

    def _batch(self, draw: Callable[[], Episode], tokens_per_step: int) -> Texts:
        drawn: list[Episode] = []
        longest = 0
        while len(drawn) < _TEXTS_AT_LEAST or (len(drawn) + 1) * longest <= tokens_per_step:
            drawn.append(draw())
            longest = max(longest, len(drawn[-1].ids))
        return texts_of(drawn)


def texts_of(episodes: Sequence[Episode]) -> Texts:
    """The episodes as one batch, padded on the right."""
    tokens = np.full((len(episodes), max(len(one.ids) for one in episodes)), PAD_TOKEN, dtype=np.int64)
    token_mask, answer_mask = np.zeros(tokens.shape, np.bool_), np.zeros(tokens.shape, np.bool_)
    for row, one in enumerate(episodes):
        tokens[row, : len(one.ids)] = one.ids
        token_mask[row, : len(one.ids)] = True
        answer_mask[row, np.array(one.answers) - 1] = True
    return Texts(tokens, token_mask, answer_mask)
