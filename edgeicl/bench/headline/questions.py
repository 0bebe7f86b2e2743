"""What is asked: the same queries of the artifact and of the teacher, and the demonstrations of the latter."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from edgeicl.bench.artifact import Artifact
from edgeicl.bench.classify import query_ids, task_of
from edgeicl.errors import DataError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.specs.source import Source
from edgeicl.tasks.demonstrations import choose
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import by_query, unevaluated
from edgeicl.tasks.prompt import PromptEncoder
from edgeicl.tasks.readers import read_examples

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DataName = Literal["in_domain", "out_of_domain"]


@dataclass(frozen=True)
class Shown:
    """The demonstrations that are asked for: where they are drawn from, how many, and how."""

    source: Source
    count: int
    balanced: bool
    seed: int


@dataclass(frozen=True)
class Questions:
    """Token ids for both sides, and what is right."""

    data: tuple[DataName, ...]
    """Of each query."""
    truth: npt.NDArray[np.int64]
    allowed: npt.NDArray[np.bool_]
    labels: tuple[str, ...]
    artifact_rows: list[list[int]]
    artifact_answers: list[tuple[int, ...]]
    teacher_rows: list[list[int]]
    teacher_answers: list[tuple[int, ...]]
    demonstrations: list[int]

    @property
    def artifact_tokens(self) -> int:
        """Of the median query."""
        return median_low([len(row) for row in self.artifact_rows])

    @property
    def teacher_tokens(self) -> int:
        """Of the median query, without the demonstrations."""
        return median_low([len(row) for row in self.teacher_rows])


def questions(
    artifact: Artifact,
    teacher: Path,
    sources: Mapping[DataName, Source],
    shown: Shown,
    *,
    queries: int,
    base_folder: Path,
) -> Questions:
    """At most `queries` of each of `sources`, drawn with a fixed seed, and demonstrations that are no query.

    Raises:
        DataError: an artifact without a task, data that can't be read or is too little, or demonstrations that
            don't fit the teacher's context; says how many do.
    """
    task = task_of(artifact)
    labels = tuple(task.verbalizers)
    chosen: list[tuple[DataName, Example]] = []
    everything: list[Example] = []
    for data, source in sources.items():
        examples = read_examples(source, labels=labels, base_folder=base_folder)
        everything += examples
        drawn = random.Random(f"headline/{data}").sample(range(len(examples)), min(queries, len(examples)))
        chosen += [(data, examples[index]) for index in sorted(drawn)]
    asked = [example for _, example in chosen]
    encoder = PromptEncoder(
        _tokenizer(teacher), pattern=task.pattern, verbalizers=task.verbalizers, separator=task.separator
    )
    pool = by_query(task.pattern, read_examples(shown.source, labels=labels, base_folder=base_folder))
    evaluated = by_query(task.pattern, everything)
    clean, _ = unevaluated(pool, evaluated, leakage="drop", where="the demonstrations")
    drawn_ones = choose(
        list(clean.values()), count=shown.count, balanced=shown.balanced, seed=shown.seed, labels=labels
    )
    rows = encoder.queries(asked)
    answers = [tuple(encoder.tokens[label]) for label in labels]
    _require_room(teacher, encoder, drawn_ones, max(map(len, rows)) + max(map(len, answers)))
    return Questions(
        data=tuple(data for data, _ in chosen),
        truth=encoder.label_indices(asked),
        allowed=encoder.allowed(asked),
        labels=labels,
        artifact_rows=query_ids(artifact, task, asked),
        artifact_answers=task.label_columns(),
        teacher_rows=rows,
        teacher_answers=answers,
        demonstrations=encoder.demonstrations(drawn_ones),
    )


def _require_room(teacher: Path, encoder: PromptEncoder, shown: Sequence[Example], query: int) -> None:
    positions = anatomy_of(model_config(teacher)).positions
    if len(encoder.demonstrations(shown)) + query <= positions:
        return
    fitting = next(
        (
            count
            for count in range(len(shown) - 1, 0, -1)
            if len(encoder.demonstrations(shown[:count])) + query <= positions
        ),
        0,
    )
    raise DataError(
        f"{len(shown)} demonstrations are {len(encoder.demonstrations(shown))} tokens, and the longest query "
        f"with its label {query}; found {positions} positions in {teacher}: about {fitting} fit",
        next_step=f"ask for fewer: --demonstrations {fitting}" if fitting else "take a teacher that reads more",
    )


def _tokenizer(folder: Path) -> Tokenizer:
    """The model's own, which neither pads nor cuts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
