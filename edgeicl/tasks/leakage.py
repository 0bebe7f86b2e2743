"""Texts that are in training and in evaluation data: the same but for case, spaces and forms of characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence, Sized
from typing import Literal, TypeVar

from edgeicl.errors import DataError
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.pattern import pattern_columns
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import query_text

Leakage = Literal["refuse", "drop"]
"""Of training examples whose text is evaluated too: an error, or left out and told."""

TextKey = tuple[str, ...]

Key = TypeVar("Key", bound=Hashable)


def normalized(text: str) -> str:
    """`text` in Unicode's compatibility form (NFKC), case folded, each run of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_key(pattern: str, example: Example) -> str:
    """Equal for examples whose texts in the pattern's columns are the same; labels don't count."""
    return normalized(query_text(pattern, example))


def text_keys(pattern: str, examples: Sequence[Example]) -> list[TextKey]:
    """The texts of each example, the same whatever words and order a pattern has for them; see `normalized`."""
    for example in examples:
        query_text(pattern, example)  # tells a column that isn't there
    columns = pattern_columns(pattern)
    return [tuple(sorted(normalized(example.columns[name]) for name in columns)) for example in examples]


def by_query(pattern: str, examples: Sequence[Example]) -> dict[str, Example]:
    """The first example of each `text_key`: for data that one pattern is filled from."""
    return _first_of_each((text_key(pattern, example) for example in examples), examples)


def by_columns(pattern: str, examples: Sequence[Example]) -> dict[TextKey, Example]:
    """The first example of each of `text_keys`: for tasks whose patterns differ."""
    return _first_of_each(text_keys(pattern, examples), examples)


def _first_of_each(keys: Iterable[Key], examples: Iterable[Example]) -> dict[Key, Example]:
    found: dict[Key, Example] = {}
    for key, example in zip(keys, examples, strict=True):
        found.setdefault(key, example)
    return found


def unevaluated(
    examples: Mapping[Key, Example], evaluated: Mapping[Key, Example], *, leakage: Leakage, where: str
) -> tuple[dict[Key, Example], tuple[Deviation, ...]]:
    """`examples` whose key is none of `evaluated`, and a deviation where some are left out.

    Raises:
        DataError: an example is evaluated too, and `leakage` is refuse.
    """
    leaked = [key for key in examples if key in evaluated]
    if not leaked:
        return dict(examples), ()
    if leakage == "refuse":
        first, again = examples[leaked[0]], evaluated[leaked[0]]
        raise DataError(
            f"{where}: {len(leaked)} of {len(examples)} texts are in the evaluation data too, first "
            f"{first.where or 'an example'} (evaluation: {again.where or 'an example'}); expected none",
            next_step="remove them from one of both, or leave them out with distill.leakage: drop",
        )
    kept = {key: example for key, example in examples.items() if key not in evaluated}
    return kept, (fewer_examples(where, examples, kept, f"{len(leaked)} texts are in the evaluation data too"),)


def fewer_examples(where: str, asked: Sized, got: Sized, why: str) -> Deviation:
    """That `why` left out some of the training examples of `where`."""
    return Deviation(what="training examples", where=where, asked=str(len(asked)), got=str(len(got)), why=why)


def shared_columns(pattern: str, examples: Iterable[Example], evaluation: Sequence[Example]) -> dict[str, int]:
    """Column -> how many of `examples` have a text there that an evaluation example has there too.

    For patterns of several columns: pairs of MNLI share premises without being the same pair. Columns that
    share nothing are left out.
    """
    columns = pattern_columns(pattern)
    if len(columns) < 2:
        return {}
    evaluated = {name: {normalized(one.columns[name]) for one in evaluation} for name in columns}
    shared = dict.fromkeys(columns, 0)
    for example in examples:
        for name in columns:
            shared[name] += normalized(example.columns[name]) in evaluated[name]
    return {name: count for name, count in shared.items() if count}
