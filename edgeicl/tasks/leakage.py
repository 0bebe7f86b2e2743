"""Texts that are in training and in evaluation data: the same but for case, spaces and forms of characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from edgeicl.specs.pattern import pattern_columns
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import query_text


def normalized(text: str) -> str:
    """`text` in Unicode's compatibility form (NFKC), case folded, each run of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_key(pattern: str, example: Example) -> str:
    """Equal for examples whose texts in the pattern's columns are the same; labels don't count."""
    return normalized(query_text(pattern, example))


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
