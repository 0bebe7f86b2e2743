"""`edgeicl run`: what an artifact answers to a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeicl.bench.artifact import open_artifact
from edgeicl.bench.classify import classify, task_of
from edgeicl.bench.generate import generate
from edgeicl.errors import DataError
from edgeicl.tasks.prompt import pattern_columns


@dataclass(frozen=True)
class Answer:
    """A label with the probability of every label, or a generated text."""

    label: str | None
    probabilities: dict[str, float]
    text: str | None


def run_text(
    artifact: Path, given: str | Mapping[str, str], *, threads: int, generate_tokens: int | None = None
) -> Answer:
    """The artifact's answer: a label, or a text where it has no task or `generate_tokens` is given.

    `given` holds the columns of the task's pattern; a plain text will do for a pattern of one column.

    Raises:
        DataError: columns are missing, or the text is too long.
        IntegrityError: a file of the artifact is not the one that was written.
    """
    opened = open_artifact(artifact)
    if generate_tokens is not None or opened.task is None:
        if not isinstance(given, str):
            raise DataError("columns were given to generate from; expected one text")
        text = generate(opened, given, tokens=generate_tokens or 32, threads=threads)
        return Answer(label=None, probabilities={}, text=text)
    columns = given if not isinstance(given, str) else {_only_column(task_of(opened).pattern): given}
    shares = classify(opened, columns, threads=threads)
    return Answer(label=max(shares, key=lambda label: shares[label]), probabilities=shares, text=None)


def _only_column(pattern: str) -> str:
    columns = pattern_columns(pattern)
    if len(columns) != 1:
        raise DataError(
            f"one text was given, but the task's pattern has the columns {', '.join(columns)}",
            next_step="give every column a text: " + " ".join(f"{column}=..." for column in columns),
        )
    return columns[0]
