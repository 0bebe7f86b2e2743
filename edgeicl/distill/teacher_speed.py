"""What teacher targets cost, beside the plain way in the same run: time, memory, and how far results differ."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from edgeicl.distill.context_task import ContextTask
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.plain_scoring import plain_scores
from edgeicl.distill.prefix_cache import encode_prefix
from edgeicl.distill.scoring import score_queries
from edgeicl.distill.task_run import TaskRun
from edgeicl.errors import BenchError, Problem, SpecError
from edgeicl.models.memory import needed_bytes, scoring_bytes
from edgeicl.module_process import run_module
from edgeicl.progress import track
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.teacher_speed import Compared, ScoringMemory, TeacherSpeed
from edgeicl.store import Store
from edgeicl.tasks.label_words import with_label_words

log = logging.getLogger(__name__)

_MEMORY_TIMEOUT_S = 4 * 3600.0


def teacher_speed(
    recipe: Recipe, *, store: Store, base_folder: Path, queries: int, plain_queries: int
) -> TeacherSpeed:
    """Scores the recipe's first `queries` transfer examples after its first demonstration set, both ways.

    Raises:
        DataError: what `edgeicl compile` would refuse too.
        SpecError: a recipe of another method than context.
        BenchError: the process whose memory is measured failed.
    """
    if recipe.distill.method != "context":
        problem = Problem("distill.method", recipe.distill.method, "expected context, whose targets these are")
        raise SpecError(
            recipe.name,
            [problem],
            next_step="set distill.method: context, or name another recipe",
        )
    run = TaskRun(with_label_words(recipe, base_folder), store, base_folder)
    method = ContextTask(run)
    method.check()
    tokens = list(method.encoder.tokens.values())
    before = next(iter(method.contexts.values()))
    rows = method.queries[:queries]
    reader = method.teacher_reader()
    compared = compare_ways(reader, rows, tokens, before=before, plain_queries=min(plain_queries, len(rows)))
    log.info("%.1f times as fast; now the memory, in processes of their own", compared.ratio)
    log.debug("%s", compared.model_dump_json())
    del reader
    folder, load_in = run.teacher_folder, run.teacher.load_in
    counts = sorted(
        {max(1, len(rows) // 8), max(1, len(rows) // 2)}
    )  # loading dominates; more would show the same
    return TeacherSpeed(
        teacher=run.teacher.model,
        load_in=load_in,
        threads=torch.get_num_threads(),
        compared=compared,
        memory=tuple(scoring_memory(folder, load_in, rows[:count], tokens, before=before) for count in counts),
        estimated_bytes=needed_bytes(folder, load_in) + scoring_bytes(folder, load_in, method.scoring_size()),
    )


def compare_ways(
    reader: LabelReader,
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    *,
    before: Sequence[int],
    plain_queries: int,
) -> Compared:
    """Scores all `queries`; after each pack, the plain way, those of the `plain_queries` that were in it."""
    places = np.unique(np.linspace(0, len(queries) - 1, plain_queries).astype(int)).tolist()
    plain: dict[int, NDArray[np.float32]] = {}
    spent, plain_spent = np.zeros(2), np.zeros(2)  # by the wall clock, and of the processor
    done = 0
    plain_scores(reader, queries[0][:8], tokens, before=())  # what only the first pass of a process pays
    mark = _clocks()

    def after_pack(n: int) -> None:
        nonlocal done, mark, spent, plain_spent
        tell(n)
        now = _clocks()
        spent = spent + now - mark
        done += n
        while len(plain) < len(places) and places[len(plain)] < done:
            place = places[len(plain)]
            plain[place] = plain_scores(reader, queries[place], tokens, before=before)
        mark = _clocks()
        plain_spent = plain_spent + mark - now

    with track("targets and full prompts by turns", len(queries)) as tell:
        scores = score_queries(reader, queries, tokens, before=before, advance=after_pack)
    started = time.perf_counter()
    encode_prefix(reader.model, before)
    context_s = time.perf_counter() - started
    ratios = plain_spent / len(places) * len(queries) / spent
    return Compared(
        queries=len(queries),
        plain_queries=len(places),
        context_tokens=len(before),
        query_tokens=fmean(map(len, queries)),
        targets_s=spent[0],
        context_s=context_s,
        plain_s=plain_spent[0] / len(places),
        ratio=ratios[0],
        cpu_ratio=ratios[1],
        largest_difference=max(float(np.abs(scores[place] - found).max()) for place, found in plain.items()),
        spread=float(scores[:, 0].std()),
        plain_log_probabilities=tuple(tuple(found.tolist()) for found in plain.values()),
    )


def scoring_memory(
    folder: Path,
    load_in: str,
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    *,
    before: Sequence[int],
) -> ScoringMemory:
    """Peak memory of loading the model in `folder` and scoring `queries`, in a process of its own, on the CPU.

    Raises:
        BenchError: that process failed.
    """
    request = {
        "folder": str(folder.resolve()),
        "load_in": load_in,
        "queries": [list(query) for query in queries],
        "tokens": [list(word) for word in tokens],
        "before": list(before),
        "threads": torch.get_num_threads(),
    }
    done = run_module("edgeicl.distill.scoring_process", request, timeout_s=_MEMORY_TIMEOUT_S)
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise BenchError(
            f"the process whose memory is measured ended with exit code {done.returncode}:\n{last}"
        )
    return ScoringMemory(queries=len(queries), peak_rss_bytes=json.loads(done.stdout.splitlines()[-1]))


def _clocks() -> NDArray[np.float64]:
    return np.array([time.perf_counter(), time.process_time()])
