"""Plain text that holds evaluation examples word by word, and is therefore not trained on."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from edgeicl.specs.manifest import Deviation
from edgeicl.specs.pattern import pattern_columns
from edgeicl.tasks.example import Example

LEAST_WORDS = 8
"""Of an example's longest column: what is shorter stands in other texts by chance."""

_WORD = re.compile(r"\w+")

Words = tuple[str, ...]


def _words(text: str) -> Words:
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def without_evaluated(
    documents: Sequence[str], evaluation: Sequence[Example], *, pattern: str, where: str
) -> tuple[list[str], tuple[Deviation, ...]]:
    """`documents` in which no evaluation example stands whole, and a deviation where some are left out.

    An example stands in a document that has all its columns' texts, but for case and what is no word, in any
    order. Examples whose columns all have fewer than `LEAST_WORDS` words are not looked for.
    """
    columns = pattern_columns(pattern)
    by_start: defaultdict[Words, list[tuple[Words, ...]]] = defaultdict(list)
    for example in evaluation:
        texts = sorted((_words(example.columns[name]) for name in columns), key=len, reverse=True)
        if len(texts[0]) >= LEAST_WORDS:
            by_start[texts[0][:LEAST_WORDS]].append(tuple(texts))
    kept = [document for document in documents if not _holds_one(_words(document), by_start)]
    left_out = len(documents) - len(kept)
    if not left_out:
        return kept, ()
    return kept, (
        Deviation(
            what="documents",
            where=where,
            asked=str(len(documents)),
            got=str(len(kept)),
            why=f"an evaluation example stands in each of {left_out}",
        ),
    )


def _holds_one(document: Words, by_start: dict[Words, list[tuple[Words, ...]]]) -> bool:
    starts = {document[place : place + LEAST_WORDS] for place in range(len(document) - LEAST_WORDS + 1)}
    candidates = [texts for start in starts & by_start.keys() for texts in by_start[start]]
    spaced = f" {' '.join(document)} " if candidates else ""
    return any(all(f" {' '.join(text)} " in spaced for text in texts) for texts in candidates)
