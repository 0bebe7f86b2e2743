"""Rounds of the artifact and of the teacher on the same queries, and what they come to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.headline.questions import Questions, Shown, questions
from edgeicl.bench.headline.side import Precision, Side, artifact_side, teacher_side
from edgeicl.bench.rivals.environment import find_python
from edgeicl.bench.rivals.transformers_eager import TRANSFORMERS
from edgeicl.errors import BenchError
from edgeicl.numerics.paired_ratio import paired_ratio
from edgeicl.progress import track
from edgeicl.specs.comparison import NotMeasured
from edgeicl.specs.headline import AgainstTeacher, Answerer, Headline
from edgeicl.specs.measurement import PairedTest
from edgeicl.specs.source import Source

log = logging.getLogger(__name__)

_STANDARD_ERRORS = 1.96


def headline(
    artifact: Path,
    *,
    teacher: Path,
    teacher_name: str,
    sources: Mapping[Any, Source],
    shown: Shown,
    base_folder: Path,
    threads: int,
    queries: int,
    rounds: int,
    precisions: Sequence[Precision] = ("fp32", "bf16"),
    python: Path | None = None,
    install: bool = False,
) -> Headline:
    """The artifact in the folder `artifact` beside the teacher in `teacher`, over `rounds` rounds of all.

    Args:
        sources: Data set -> where its queries come from; of each at most `queries` are asked.
        python: Interpreter that has transformers and torch; else one that was made, or this one.

    Raises:
        DataError: data that can't be read, demonstrations that don't fit, an artifact without a task.
        IntegrityError: a file of the artifact is not the one that was written.
        BenchError: transformers is not to be had, or a process of the artifact or every teacher failed.
    """
    opened = open_artifact(artifact)
    found = find_python(TRANSFORMERS, given=python, install=install)
    asked = questions(opened, teacher, sources, shown, queries=queries, base_folder=base_folder)
    ours = artifact_side(opened, asked, threads)
    theirs = [
        teacher_side(teacher, asked, precision, found, threads, cached=cached, averages=ours.averages)
        for precision in precisions
        for cached in (False, True)
    ]
    failed = run_rounds(ours, theirs, rounds)
    if not theirs:
        told = "\n".join(f"{entry.name}: {entry.reason}" for entry in failed)
        raise BenchError(f"the teacher could not be measured:\n{told}")
    first = ours.runs[0]
    answerers = [side.answerer(asked) for side in (ours, *theirs)]
    return Headline(
        fidelity="measured",
        machine=first["machine"],
        processor=first["processor"],
        logical_cores=first["logical_cores"],
        threads=threads,
        artifact_sha256=opened.sha256,
        teacher=teacher_name,
        demonstrations=shown.count,
        demonstration_tokens=len(asked.demonstrations),
        demonstration_seed=shown.seed,
        queries=len(asked.truth),
        artifact=answerers[0],
        teachers=tuple(answerers[1:]),
        not_measured=tuple(failed),
        pairings=tuple(against(ours, side, asked) for side in theirs),
        notes=(*_notes(opened, ours), *at_chance(answerers, labels=len(asked.labels))),
    )


def run_rounds(ours: Side, theirs: list[Side], rounds: int) -> list[NotMeasured]:
    """All sides once a round, every other time in reverse; takes teachers that fail out of `theirs`."""
    failed = []
    with track("rounds", rounds * (1 + len(theirs))) as advance:
        for number in range(rounds):
            order = [ours, *theirs]
            for side in reversed(order) if number % 2 else order:
                try:
                    side.run()
                except BenchError as error:
                    if side is ours:
                        raise
                    log.warning("%s", error)
                    theirs.remove(side)
                    failed.append(NotMeasured(name=side.name, reason=str(error)))
                advance(1)
    return failed


def against(ours: Side, theirs: Side, asked: Questions) -> AgainstTeacher:
    """The artifact over one way to run the teacher."""
    from edgeicl.numerics.paired_test import paired_difference

    def ratio(name: str) -> Any:
        sides = [[float(np.median(run[name])) for run in side.runs] for side in (ours, theirs)]
        return paired_ratio(*sides)

    right, their_right = (side.chosen(asked) == asked.truth for side in (ours, theirs))
    data = np.array(asked.data)
    tests = []
    for name in dict.fromkeys(asked.data):
        kept = data == name
        found = paired_difference(right[None, kept], their_right[None, kept])
        tests.append(
            PairedTest(
                method=ours.name,
                baseline=theirs.name,
                data=name,
                points=100 * found.mean,
                low=100 * found.low,
                high=100 * found.high,
                p_value=found.p_value,
                examples=int(kept.sum()),
            )
        )
    return AgainstTeacher(
        teacher=theirs.name,
        query=ratio("query_ms"),
        peak_rss=ratio("peak_rss_bytes"),
        file_bytes=ours.file_bytes / theirs.file_bytes,
        bytes_per_query=ours.cost.bytes / theirs.cost.bytes,
        flops_per_query=ours.cost.flops / theirs.cost.flops if ours.cost.flops and theirs.cost.flops else None,
        tests=tuple(tests),
    )


def _notes(opened: Artifact, ours: Side) -> tuple[str, ...]:
    notes = []
    if opened.prefixes:
        notes.append(
            f"before the artifact's queries stand {len(opened.prefixes)} sets of up to {ours.before_tokens} "
            "positions, computed beforehand"
        )
    if ours.cost.flops is None:
        notes.append("the artifact's operations are not counted: its graph is another exporter's")
    return tuple(notes)


def at_chance(answerers: Sequence[Answerer], *, labels: int) -> list[str]:
    """A note for each side whose answers can't be told from guesses: its accuracy says nothing then.

    Balanced accuracy of guesses is 1 / `labels`, give or take 1.96 standard errors.
    """
    share = 1 / labels
    return [
        f"{side.name} answers {row.data.replace('_', '-')} queries no better than chance "
        f"({100 * row.balanced_accuracy:.1f} % of {row.examples}, {labels} labels): "
        "figures of speed and size hold, accuracy says nothing"
        for side in answerers
        for row in side.accuracy
        if row.balanced_accuracy <= share + _STANDARD_ERRORS * (share * (1 - share) / row.examples) ** 0.5
    ]
