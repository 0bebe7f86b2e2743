"""Labelled examples from a `Source`: files here, the built-in family and the hub in their own modules.

Nothing is skipped in silence: a row that can't be used is a DataError with its file and line.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    known = None if labels is None else frozenset(labels)
    examples: list[Example] = []
    for where, row, label in labelled_rows(source, base_folder):
        if known is not None and label not in known:
            raise DataError(
                f"{where}: found label '{label}'; {one_of(label, labels or ())}",
                next_step=f"name '{label}' in map_labels or drop_labels of the source, or give it a verbalizer",
            )
        texts = {name: text for name, value in row.items() if (text := _text(value)) is not None}
        group = _of_column(where, row, source.breakdown, "breakdown") if source.breakdown else ""
        texts.pop(source.label, None)
        examples.append(Example(texts, label, where, _options(where, row, source, known, label), group))
    if not examples:
        raise DataError(f"{source.source}: found no example; expected at least one after where and drop_labels")
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


def labelled_rows(source: Source, base_folder: Path) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Place, values and label of each row that is kept; the label as `map_labels` has it."""
    for where, row in wanted_rows(source, base_folder):
        found = _of_column(where, row, source.label, "label")
        if found not in source.drop_labels:
            yield where, row, source.map_labels.get(found, found)


def wanted_rows(source: Source, base_folder: Path) -> Iterator[Row]:
    """The rows of `source` that `where` asks for, each with its place; columns as `rename` has them."""
    for where, row in source_rows(source, base_folder):
        if all(_of_column(where, row, name, "where") == text for name, text in source.where.items()):
            yield _renamed(where, row, source.rename) if source.rename else (where, row)


def _renamed(where: str, row: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    for old in names:
        if old not in row:
            raise DataError(f"{where}: found no column '{old}' to rename; {one_of(old, row)}")
    kept = {name: value for name, value in row.items() if name in names or name not in names.values()}
    return where, {names.get(name, name): value for name, value in kept.items()}


def source_rows(source: Source, base_folder: Path) -> Iterator[Row]:
    """All rows of `source` as they stand there, each with its place."""
    kind, _, name = source.source.partition(":")
    if source.split is None:  # only files have none
        return file_rows(local_path(name, base_folder), columns=source.columns)
    if kind == "hub":
        old = {new: old for old, new in source.rename.items()}
        label = old.get(source.label, source.label)
        return hub_rows(name, split=source.split, label=label, base_folder=base_folder)
    return builtin_rows(
        name,
        split=source.split,
        label=source.label,
        dropped=source.drop_labels,
        where=source.where,
        limit=source.limit,
        seed=source.seed,
    )


def _of_column(where: str, row: Mapping[str, Any], column: str, key: str) -> str:
    """Text of the column that `key` of the source names."""
    if column not in row:
        raise DataError(
            f"{where}: found no column '{column}' for the {key}; {one_of(column, row)}",
            next_step=f"name a column that is there in `{key}:` of the source, or all of a file without a "
            "header in `columns:`",
        )
    text = _text(row[column])
    if text is None:
        raise DataError(
            f"{where}: found {row[column]!r} in the {key} column '{column}'; expected a text or number"
        )
    return text


def _options(
    where: str, row: Mapping[str, Any], source: Source, labels: Collection[str] | None, label: str
) -> tuple[str, ...]:
    """The row's own answers, as `map_labels` has them; none where the source has no column of them."""
    if source.options is None:
        return ()
    if source.options not in row:
        raise DataError(
            f"{where}: found no column '{source.options}' for the options; {one_of(source.options, row)}",
            next_step="name a column that is there, or leave the options out",
        )
    found = row[source.options]
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise DataError(
            f"{where}: found {found!r} in the options column '{source.options}'; expected a list of texts"
        )
    options = tuple(str(source.map_labels.get(each, each)) for each in found)
    wrong = [each for each in options if labels is not None and each not in labels]
    if wrong:
        raise DataError(f"{where}: found the option '{wrong[0]}'; {one_of(wrong[0], labels or ())}")
    if options and label not in options:
        raise DataError(f"{where}: found label '{label}'; expected one of its options: {', '.join(options)}")
    return options


def _text(value: object) -> str | None:
    """Text of a scalar; None for what is no text (missing values, lists, nested values)."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    return None
