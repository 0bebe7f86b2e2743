"""Labelled examples from a `Source`: files here, the built-in family and the hub in their own modules.

Nothing is skipped in silence: a row that can't be used is a DataError with its file and line.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeicl.errors import DataError
from edgeicl.specs.local_path import local_path
from edgeicl.specs.nearest import one_of
from edgeicl.specs.source import Source
from edgeicl.tasks.builtin_source import builtin_rows
from edgeicl.tasks.example import Example
from edgeicl.tasks.file_source import file_rows
from edgeicl.tasks.hub_source import hub_rows

log = logging.getLogger(__name__)

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, and its values by column."""


def read_examples(source: Source, *, labels: Sequence[str] | None, base_folder: Path) -> list[Example]:
    """The examples of `source`, in its order, with labels among `labels`, or any labels where that is None.

    `drop_labels` and `map_labels` name labels as the data has them; `limit` samples the rows that are kept,
    by `seed`. Relative paths start at `base_folder`.

    Raises:
        DataError: a missing file, split or column, a row that can't be parsed, a label that has no
            verbalizer, or no row at all.
    """
    for old, new in source.map_labels.items():
        if labels is not None and new not in labels:
            raise DataError(
                f"{source.source}: map_labels sends '{old}' to '{new}', which has no verbalizer; "
                f"{one_of(new, labels)}"
            )
    examples: list[Example] = []
    for where, row in source_rows(source, base_folder):
        if not _wanted(where, row, source):
            continue
        found = _label(where, row, source)
        if found in source.drop_labels:
            continue
        label = source.map_labels.get(found, found)
        if labels is not None and label not in labels:
            raise DataError(
                f"{where}: found label '{found}'; {one_of(found, labels)}",
                next_step=f"name '{found}' in map_labels or drop_labels of the source, or give it a verbalizer",
            )
        texts = {name: text for name, value in row.items() if (text := _text(value)) is not None}
        texts.pop(source.label, None)
        examples.append(Example(texts, label, where))
    if not examples:
        raise DataError(
            f"{source.source}: found no example; expected at least one after drop_labels"
            + f" where {', '.join(f'{column} is {text!r}' for column, text in source.where.items())}"
            * bool(source.where)
        )
    empty = [example for example in examples if not all(text.strip() for text in example.columns.values())]
    if empty:
        log.warning(
            "%s: %d of %d rows have a column without text, first %s",
            source,
            len(empty),
            len(examples),
            empty[0].where,
        )
    if source.limit is None or source.limit >= len(examples):
        return examples
    # A sample, not the first rows: files are often sorted by label. In the file's order.
    kept = random.Random(source.seed).sample(range(len(examples)), source.limit)
    return [examples[index] for index in sorted(kept)]


def source_rows(source: Source, base_folder: Path) -> Iterator[Row]:
    """Rows of `source` as they stand there, each with its place."""
    kind, _, name = source.source.partition(":")
    if source.split is None:  # only files have none
        return file_rows(local_path(name, base_folder))
    if kind == "hub":
        return hub_rows(name, split=source.split, label=source.label, base_folder=base_folder)
    return builtin_rows(
        name,
        split=source.split,
        label=source.label,
        dropped=source.drop_labels,
        where=source.where,
        limit=source.limit,
        seed=source.seed,
    )


def _wanted(where: str, row: Mapping[str, Any], source: Source) -> bool:
    """Whether the row's columns hold what `where:` of the source asks for."""
    for column in source.where:
        if column not in row:
            raise DataError(
                f"{where}: found no column '{column}'; {one_of(column, row)}",
                next_step="name a column of the data in `where:` of the source",
            )
    return all(_text(row[column]) == text for column, text in source.where.items())


def _label(where: str, row: Mapping[str, Any], source: Source) -> str:
    if source.label not in row:
        raise DataError(
            f"{where}: found no column '{source.label}' for the label; {one_of(source.label, row)}",
            next_step="name the column that holds the label in `label:` of the source",
        )
    text = _text(row[source.label])
    if text is None:
        raise DataError(
            f"{where}: found {row[source.label]!r} in the label column '{source.label}'; "
            "expected a text or number"
        )
    return text


def _text(value: object) -> str | None:
    """Text of a scalar; None for what is no text (missing values, lists, nested values)."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    return None
