"""Scoring shared out among processes, and kept piece by piece.

A shard is a run of queries after one context. Which queries make a shard depends on nothing but their number,
and packs of queries never cross its ends: the scores have the same bits however many processes there are, and
whichever of them were killed on the way. Each process works on a run of neighbouring shards, so that it
encodes few contexts, and keeps each in a file of its own as soon as it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from numpy.typing import DTypeLike
from safetensors.numpy import save_file

from edgeicl.checkpoint import is_kept, keep_file
from edgeicl.distill.joined_tensors import Part
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.prefix_cache import Before
from edgeicl.distill.scoring import ScoreSlices, score_slices
from edgeicl.errors import IntegrityError
from edgeicl.progress import track
from edgeicl.store import Workers

SHARD_QUERIES = 64
"""Some ten packs on a CPU: few enough that a killed process loses little, many enough to fill packs."""

_SCORES = "scores"


class Shard(NamedTuple):
    """Queries `start` to `stop` (without it) after the context of that name."""

    context: str
    start: int
    stop: int

    @property
    def file(self) -> str:
        return f"{self.context}/{self.start:08d}.safetensors"


def shards_of(contexts: Iterable[str], queries: int) -> list[Shard]:
    """All shards of so many queries, context by context."""
    starts = range(0, queries, SHARD_QUERIES)
    return [Shard(name, at, min(at + SHARD_QUERIES, queries)) for name in contexts for at in starts]


def score_shards(
    load_reader: Callable[[], LabelReader],
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    *,
    contexts: Mapping[str, Before],
    over: Over,
    stored: DTypeLike,
    kept: Path,
    workers: Workers,
    description: str,
    score: ScoreSlices | None = None,
) -> None:
    """Scores `queries` after each of `contexts` into files below `kept`; returns when all processes are done.

    What lies there already is not scored again, and the model not loaded where nothing is missing. Where each
    process holds a part of the model only, all of them score everything together. `score` asks in another way
    than `score_slices`.
    """
    shards = shards_of(contexts, len(queries))
    missing = workers.from_writer([shard for shard in shards if not is_kept(kept / shard.file)])
    if not missing:
        return
    reader = load_reader()
    mine = missing if reader.is_sharded else share_of(missing, workers)
    # What this process has to do; with several, each has nearly as much.
    count = sum(shard.stop - shard.start for shard in mine)
    done = 0 if workers.count > 1 else len(contexts) * len(queries) - count
    several = f", process 1 of {workers.count}" * (workers.count > 1)
    with track(description + several, done + count, already_done=done) as advance:
        for name, group in groupby(mine, key=lambda shard: shard.context):
            run = list(group)
            slices = [(shard.start, shard.stop) for shard in run]
            scored = (score or score_slices)(
                reader, queries, tokens, slices, before=contexts[name], over=over, advance=advance
            )
            for shard, scores in zip(run, scored, strict=True):
                if workers.is_writer or not reader.is_sharded:
                    keep_file(kept / shard.file, partial(save_file, {_SCORES: scores.astype(stored)}))
    workers.barrier()


def share_of(items: Sequence[Shard], workers: Workers) -> Sequence[Shard]:
    """A run of `items` for this process; those of all processes are all items, each once."""
    first, end = (len(items) * index // workers.count for index in (workers.index, workers.index + 1))
    return items[first:end]


def parts_of(kept: Path, shards: Sequence[Shard]) -> dict[str, list[Part]]:
    """What was kept of `shards`, by context and in the order of the queries.

    Raises:
        IntegrityError: a shard that isn't there, or isn't what was written.
    """
    parts: dict[str, list[Part]] = {}
    for shard in shards:
        if not is_kept(kept / shard.file):
            raise IntegrityError(
                f"{kept / shard.file}: found no whole file; expected what a process of this launch wrote",
                next_step="run the same command again",
            )
        parts.setdefault(shard.context, []).append(Part(kept / shard.file, _SCORES))
    return parts
