"""Labels from an artifact, as an app reads them: format the query, run it, compare the label words.

A label's score is the sum, or the mean, of its tokens' log-probabilities after the query; probabilities are
renormalized over the labels. Behind several demonstration sets each query is asked once a set, and the majority
decides.

Notation: N queries, B of a batch, S demonstration sets (1 where there is none), L labels, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeicl.bench.answer_scores import log_probabilities, needed_positions, score_rows
from edgeicl.bench.answers import unpacked
from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.devices.device import Device
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.workload_run import place_artifact
from edgeicl.errors import BenchError, DataError
from edgeicl.numerics.classification import measures
from edgeicl.numerics.voting import majority_vote, votes
from edgeicl.progress import track
from edgeicl.specs.manifest import TaskFile
from edgeicl.specs.measurement import LabelledAccuracy
from edgeicl.specs.source import Source
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import leading_tokens, query_text
from edgeicl.tasks.readers import read_examples

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_BATCH = 16
_TIMEOUT_S = 3600


def task_of(artifact: Artifact) -> TaskFile:
    """The task that the artifact was made for. DataError where it has none."""
    if artifact.task is None:
        raise DataError(
            f"{artifact.path} has no task.json, so it has no labels",
            next_step="generate text instead, or compile a recipe with a task",
        )
    return artifact.task


@dataclass(frozen=True)
class Answer:
    """A query's label; by label, the mean probability over the sets, and how many sets chose it."""

    label: str
    probabilities: dict[str, float]
    votes: dict[str, int]


def classify(artifact: Artifact, columns: Mapping[str, str], *, threads: int) -> Answer:
    """The answer to one query, whose texts are in `columns`."""
    task = task_of(artifact)
    ids = query_ids(artifact, task, [Example(columns, label="", where="the given text")])
    by_set = probabilities(artifact, ids, threads=threads)
    labels = list(task.verbalizers)
    return Answer(
        label=labels[majority_vote(by_set)[0]],
        probabilities=dict(zip(labels, map(float, by_set.mean(axis=0)[0]), strict=True)),
        votes=dict(zip(labels, map(int, votes(by_set)[0]), strict=True)),
    )


def evaluate(
    artifact: Path,
    source: Source,
    base_folder: Path,
    *,
    threads: int,
    batch_size: int = _BATCH,
    device: Device = THIS_COMPUTER,
) -> LabelledAccuracy:
    """Accuracy of the artifact in the folder `artifact` on the examples of `source`.

    On another device than this computer it is told, too, how many queries are answered as they are here.

    Raises:
        DataError: data that can't be read, a query that is too long, or an artifact without a task.
        IntegrityError: a file of the artifact is not the one that was written.
        BenchError: a device that is not ready, or on which the artifact doesn't run.
    """
    if device.provider != "cpu":
        raise BenchError(f"{device.address}: labels are scored on processors", next_step="leave --on out")
    opened = open_artifact(artifact)
    task = task_of(opened)
    labels = tuple(task.verbalizers)
    examples = read_examples(source, labels=labels, base_folder=base_folder)
    ids = query_ids(opened, task, examples)
    there = None
    if device != THIS_COMPUTER:  # first: what isn't ready is told before anything is computed here
        there = probabilities_on(device, opened, ids, threads=threads, batch_size=batch_size)
    shares = probabilities(opened, ids, threads=threads, batch_size=batch_size)
    # A row's own options, where it has some, are all that it may be answered with.
    allowed = [[not one.options or label in one.options for label in labels] for one in examples]
    chosen = majority_vote(np.where(allowed, shares, -1.0))
    same_answers = None
    if there is not None:
        here, chosen = chosen, majority_vote(np.where(allowed, there, -1.0))
        same_answers = float((here == chosen).mean())
    truth = np.array([labels.index(example.label) for example in examples])
    groups = np.array([example.group for example in examples])

    def labelled(data: str, kept: npt.NDArray[np.bool_]) -> LabelledAccuracy:
        found = measures(chosen[kept], truth[kept], labels)
        return LabelledAccuracy(data=data, examples=int(kept.sum()), **asdict(found))

    whole = labelled(str(source), np.ones(len(examples), bool))
    by_group = {str(group): labelled(str(group), groups == group) for group in np.unique(groups[groups != ""])}
    return whole.model_copy(
        update={"by_group": by_group, "device": device.address, "same_answers": same_answers}
    )


def query_ids(artifact: Artifact, task: TaskFile, examples: Sequence[Example]) -> list[list[int]]:
    """Token ids of each query, as they follow on the prefix or on nothing. DataError for one too long."""
    # The tokens that the tokenizer puts first stand in the prefix, where there is one.
    leading = [] if artifact.prefixes else list(leading_tokens(artifact.tokenizer))
    room = artifact.context_tokens - artifact.prefix_tokens
    texts = [query_text(task.pattern, example) for example in examples]
    encodings = artifact.tokenizer.encode_batch(texts, add_special_tokens=False)
    answer = max(len(tokens) for tokens in task.verbalizer_tokens.values())
    rows = []
    for example, encoding in zip(examples, encodings, strict=True):
        row = [*leading, *encoding.ids]
        if not row or len(row) + answer > room:
            before = f" behind {artifact.prefix_tokens} tokens of demonstrations" if artifact.prefixes else ""
            raise DataError(
                f"{example.where or 'query'}: found {len(row)} tokens; expected 1 to {room - answer}{before}, "
                f"with {answer} left for the label",
                next_step="shorten the text",
            )
        rows.append(row)
    return rows


def probabilities(
    artifact: Artifact, rows: Sequence[Sequence[int]], *, threads: int, batch_size: int = _BATCH
) -> Floats:
    """Probabilities [S, N, L] of the task's labels, in the order of its verbalizers."""
    task = task_of(artifact)
    answers = task.label_columns()
    batch = min(batch_size, len(rows))
    decoder = artifact.decoder(
        threads=threads,
        context_tokens=artifact.prefix_tokens + needed_positions(rows, answers),
        batch_size=batch,
    )
    with track("queries", max(1, len(artifact.prefixes)) * len(rows)) as advance:
        scores = score_rows(
            decoder, artifact.prefixes, rows, answers, mean=task.score == "mean", advance=advance
        )
    result: Floats = np.exp(log_probabilities(scores))
    return result


def probabilities_on(
    device: Device,
    artifact: Artifact,
    rows: Sequence[Sequence[int]],
    *,
    threads: int,
    batch_size: int = _BATCH,
) -> Floats:
    """`probabilities`, computed on a device."""
    task = task_of(artifact)
    with device.open() as bench:
        placed = place_artifact(bench, artifact)
        log.info("%d queries on %s", len(rows), device.address)
        found = placed.answer(
            "scores",
            timeout_s=_TIMEOUT_S,
            threads=threads,
            rows=[list(row) for row in rows],
            answers=[list(answer) for answer in task.label_columns()],
            batch_size=batch_size,
            mean=task.score == "mean",
        )
        scores = unpacked(found["scores"])
    result: Floats = np.exp(log_probabilities(scores))
    return result
