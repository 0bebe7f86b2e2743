"""Data files as a recipe describes them, made up: enough rows to read every source and to deal them out."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

from edgeicl.specs.lama_template import SUBJECT_COLUMN, is_template
from edgeicl.specs.pattern import pattern_columns
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.source import Source

ROWS_PER_LABEL = 70


def file_sources(recipe: Recipe) -> Iterator[Source]:
    """Every source of `recipe` that is a file; of demonstrations one for each seed."""
    task, shown = recipe.task, recipe.distill.demonstrations
    named = [task.train, task.in_domain, task.out_of_domain]
    named += [shown.source.for_seed(seed) for seed in shown.seeds] if shown.source else []
    return (source for source in named if source is not None and source.source.startswith("file:"))


def write_data(recipe: Recipe, folder: Path) -> None:
    """Writes every file that `recipe` names, below `folder`."""
    for source in file_sources(recipe):
        path = folder / source.source.removeprefix("file:")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = _text(source, list(_rows(recipe, source)), Path(path.name.removesuffix(".gz")).suffix)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def _rows(recipe: Recipe, source: Source) -> Iterator[dict[str, object]]:
    task = recipe.task
    columns = (SUBJECT_COLUMN,) if is_template(task.pattern) else pattern_columns(task.pattern)
    old_names = {new: old for old, new in source.rename.items()}
    old_labels = {new: old for old, new in source.map_labels.items()}
    labels = list(task.verbalizers) or ["alpha", "beta", "gamma"]
    for number in range(ROWS_PER_LABEL * len(labels)):
        label = old_labels.get(labels[number % len(labels)], labels[number % len(labels)])
        row: dict[str, object] = {name: f"{name} {source.source} {number}" for name in columns}
        row |= {source.label: label} | source.where
        row |= {source.options: labels} if source.options else {}
        row |= {source.breakdown: f"kind {number % 3}"} if source.breakdown else {}
        yield {old_names.get(name, name): value for name, value in row.items()}


def _text(source: Source, rows: list[dict[str, object]], suffix: str) -> str:
    if suffix == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    stream = io.StringIO()
    columns = list(source.columns) or list(rows[0])
    writer = csv.DictWriter(stream, columns, delimiter="\t" if suffix == ".tsv" else ",")
    if not source.columns:
        writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
