"""From examples to token ids.

A prompt is made of pieces that are encoded apart and then joined: the tokens that the tokenizer puts first
(OPT: `</s>`), for each demonstration its query, label words and separator, and the query to be answered.
So a query has the same ids with and without demonstrations, and its label is read at its last token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeicl.errors import DataError
from edgeicl.specs.nearest import one_of
from edgeicl.specs.pattern import pattern_columns
from edgeicl.tasks.example import Example
from edgeicl.tasks.verbalizer import verbalizer_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer


def query_text(pattern: str, example: Example) -> str:
    """The text whose next token is the label."""
    for name in pattern_columns(pattern):
        if name not in example.columns:
            raise DataError(
                f"{example.where or 'example'}: found no text in column '{name}' of the pattern; "
                f"{one_of(name, example.columns)}"
            )
    return pattern.format_map(example.columns)


def demonstration_text(pattern: str, example: Example, verbalizers: Mapping[str, str]) -> str:
    """The query with its answer."""
    return query_text(pattern, example) + verbalizers[example.label]


def leading_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that the tokenizer puts before any text, such as OPT's `</s>`."""
    plain: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    whole: list[int] = tokenizer.encode("a").ids
    for count in range(len(whole) - len(plain) + 1):
        if whole[count : count + len(plain)] == plain:
            return tuple(whole[:count])
    return ()


class PromptEncoder:
    """Token ids of the queries and demonstrations of one task, for one tokenizer."""

    asks_channel = False
    """Whether a model is asked for the text after the label; see `ChannelEncoder`."""

    def __init__(
        self, tokenizer: Tokenizer, *, pattern: str, verbalizers: Mapping[str, str], separator: str
    ) -> None:
        self.pattern = pattern
        self.verbalizers = dict(verbalizers)
        self.tokens = verbalizer_tokens(verbalizers, tokenizer)
        self.leading = leading_tokens(tokenizer)
        self._tokenizer = tokenizer
        self._separator: list[int] = self._encode([separator])[0] if separator else []

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of all scores."""
        return tuple(self.verbalizers)

    def queries(self, examples: Sequence[Example]) -> list[list[int]]:
        """Ids of each query, without the leading tokens. DataError for a query of no token."""
        rows = self._encode([query_text(self.pattern, example) for example in examples])
        for example, row in zip(examples, rows, strict=True):
            if not row:
                raise DataError(f"{example.where or 'example'}: found an empty query; expected some text")
        return rows

    def prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        """Ids of each query after the leading tokens: a whole prompt without demonstrations."""
        return [[*self.leading, *query] for query in self.queries(examples)]

    def demonstrations(self, examples: Sequence[Example]) -> list[int]:
        """Ids of all that stands before a query: leading tokens, then query, answer, separator of each."""
        ids = list(self.leading)
        for example, query in zip(examples, self.queries(examples), strict=True):
            ids += [*self._answered(query, self.tokens[example.label]), *self._separator]
        return ids

    def _answered(self, query: Sequence[int], word: Sequence[int]) -> list[int]:
        return [*query, *word]

    def label_indices(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        """Position of each example's label in `labels`."""
        index = {label: position for position, label in enumerate(self.labels)}
        return np.array([index[example.label] for example in examples], dtype=np.int64)

    def allowed(self, examples: Sequence[Example]) -> NDArray[np.bool_]:
        """[N, L]: which labels each example may be answered with; all where it has no options of its own."""
        rows = [[not one.options or label in one.options for label in self.labels] for one in examples]
        return np.array(rows, dtype=np.bool_)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        encodings: list[Any] = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


class ChannelEncoder(PromptEncoder):
    """Roles swapped, as in MetaICL's channel models: the label's word first, then the text it is to explain."""

    asks_channel = True

    def _answered(self, query: Sequence[int], word: Sequence[int]) -> list[int]:
        return [*word, *query]
