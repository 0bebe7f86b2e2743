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
from edgeicl.bench.kept_rounds import KeptRounds
from edgeicl.bench.quiet import disquiet
from edgeicl.bench.rivals.contender import RivalBuilder
from edgeicl.bench.rivals.table import RIVALS
from edgeicl.bench.rivals.transformers_eager import TRANSFORMERS
from edgeicl.bench.rounds import NOISY_WIDTH, ONE_ROUND, run_rounds
from edgeicl.errors import BenchError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.paired_ratio import paired_ratio
from edgeicl.specs.comparison import NotMeasured
from edgeicl.specs.headline import AgainstTeacher, Answerer, Headline
from edgeicl.specs.measurement import PairedTest
from edgeicl.specs.source import Source
from edgeicl.store import Store, folder_hashes

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
    store: Store,
    threads: int,
    queries: int,
    rounds: int,
    most_rounds: int = 0,
    precisions: Sequence[Precision] = ("fp32", "bf16"),
    python: Path | None = None,
    install: bool = False,
) -> Headline:
    """The artifact in the folder `artifact` beside the teacher in `teacher`, over `rounds` rounds of all.

    More follow while they disagree, up to `most_rounds`. Interrupted and asked again, it goes on from the last
    whole round.

    Args:
        sources: Data set -> where its queries come from; of each at most `queries` are asked.
        store: Where the teacher is kept in each precision for the next time.
        python: Interpreter that has transformers and torch; else one that was made, or this one.

    Raises:
        DataError: data that can't be read, demonstrations that don't fit, an artifact without a task.
        IntegrityError: a file of the artifact is not the one that was written.
        BenchError: transformers is not to be had, or a process of the artifact or every teacher failed.
    """
    opened = open_artifact(artifact)
    # Saved in the precision that it is run in: converting while loading would count as memory.
    builder = RivalBuilder(
        checkpoint=teacher,
        checkpoint_digests=folder_hashes(teacher),
        vocabulary=anatomy_of(model_config(teacher)).vocabulary,
        context_tokens=0,
        store=store,
        pythons={TRANSFORMERS.name: python} if python else {},
        install=install,
    )
    asked = questions(opened, teacher, sources, shown, queries=queries, base_folder=base_folder)
    ours = artifact_side(opened, asked, threads)
    theirs, not_measured = _teacher_sides(builder, asked, precisions, threads, averages=ours.averages)
    if not theirs:
        raise _unmeasured(not_measured)
    about = [dict(opened.manifest.files), *(side.about for side in (ours, *theirs))]
    with KeptRounds(store.root, about) as kept:
        course = run_rounds(
            [ours],
            theirs,
            rounds,
            most_rounds=most_rounds,
            doubts=lambda: disagreement([against(ours, side, asked) for side in theirs]),
            kept=kept,
        )
        not_measured += course.failed
        if not theirs:
            raise _unmeasured(not_measured)
        first = ours.runs[0]
        answerers = [side.answerer(asked) for side in (ours, *theirs)]
        pairings = tuple(against(ours, side, asked) for side in theirs)
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
            not_measured=tuple(not_measured),
            pairings=pairings,
            other_work=tuple(course.other_work),
            doubts=doubts(pairings, course.other_work),
            notes=(
                *_notes(opened, ours),
                *course.notes,
                *at_chance(answerers, labels=len(asked.labels)),
            ),
        )


def _teacher_sides(
    builder: RivalBuilder, asked: Questions, precisions: Sequence[Precision], threads: int, *, averages: bool
) -> tuple[list[Side], list[NotMeasured]]:
    """The teacher in each precision, without a cache of demonstrations and with it; what is not to be had."""
    sides: list[Side] = []
    not_measured: list[NotMeasured] = []
    for precision in precisions:
        try:
            process, folder = builder.built(RIVALS[f"hf-{precision}"])
        except BenchError as error:
            log.warning("%s is not measured: %s", precision, error)
            not_measured.append(NotMeasured(name=f"teacher-{precision}", reason=str(error)))
            continue
        sides += [
            teacher_side(folder, asked, precision, process.python, threads, cached=cached, averages=averages)
            for cached in (False, True)
        ]
    return sides, not_measured


def _unmeasured(why: Sequence[NotMeasured]) -> BenchError:
    told = "\n".join(f"{entry.name}: {entry.reason}" for entry in why)
    return BenchError(f"the teacher could not be measured:\n{told}")


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


def doubts(pairings: Sequence[AgainstTeacher], other_work: Sequence[float]) -> tuple[str, ...]:
    """What speaks against the times: other work, and rounds that disagree."""
    told = disquiet(other_work)
    busy = () if told is None else (f"not quiet: {told}; times and their ratios may be far off",)
    return (*busy, *disagreement(pairings))


def disagreement(pairings: Sequence[AgainstTeacher]) -> tuple[str, ...]:
    """One doubt where rounds disagree on the time of a query."""
    if any(len(entry.query.values) == 1 for entry in pairings):
        return (ONE_ROUND,)
    wide = [entry for entry in pairings if entry.query.width > NOISY_WIDTH]
    if not wide:
        return ()
    worst = max(wide, key=lambda entry: entry.query.width)
    return (
        f"noisy: rounds disagree by more than {NOISY_WIDTH:.0%} on the time of a query beside "
        f"{', '.join(entry.teacher for entry in wide)}, most beside {worst.teacher}: between "
        f"{worst.query.low:.3g} and {worst.query.high:.3g}",
    )


def at_chance(answerers: Sequence[Answerer], *, labels: int) -> list[str]:
    """A note for each data set on which sides can't be told from guesses: their accuracy says nothing then.

    Balanced accuracy of guesses is 1 / `labels`, give or take 1.96 standard errors.
    """
    share = 1 / labels
    guessing: dict[str, list[str]] = {}
    for side in answerers:
        for row in side.accuracy:
            error = (share * (1 - share) / row.examples) ** 0.5
            if row.balanced_accuracy <= share + _STANDARD_ERRORS * error:
                told = f"{side.name} ({100 * row.balanced_accuracy:.1f} % of {row.examples})"
                guessing.setdefault(row.data.replace("_", "-"), []).append(told)
    return [
        f"no better than chance on {data} queries of {labels} labels: {', '.join(told)}; their accuracy says "
        "nothing"
        for data, told in guessing.items()
    ]
