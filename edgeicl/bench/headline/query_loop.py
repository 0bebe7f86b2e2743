"""One query at a time, timed and scored: the same loop in the artifact's process and in the teacher's.

Numpy and the protocol alone: it runs in the teacher's Python too. Notation: N queries, L labels, V logits.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeicl.bench.protocol import Ids

Logits = npt.NDArray[np.floating[Any]]


class Asked(Protocol):
    """A model that is asked queries."""

    def ask(self, ids: Ids) -> Logits:
        """Logits [V] after a query [T], behind whatever stands before queries."""

    def follow(self, token: int) -> Logits:
        """Logits [V] after one token more."""

    def ask_again(self) -> None:
        """Back to where the last query ended."""


def label_scores(model: Asked, ids: Ids, answers: Sequence[Sequence[int]]) -> list[float]:
    """Log-probability of each label's tokens after the query; further tokens are read in turn."""
    first = _log_probabilities(model.ask(ids))
    scores = [float(first[answer[0]]) for answer in answers]
    moved = False
    for number, answer in enumerate(answers):
        if len(answer) > 1 and moved:
            model.ask_again()
        for token, following in pairwise(answer):
            scores[number] += float(_log_probabilities(model.follow(token))[following])
            moved = True
    return scores


def time_queries(
    model: Asked, rows: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, warmup: int
) -> tuple[list[float], list[list[float]]]:
    """Milliseconds of each of `rows`, and its labels' scores [N][L]; the first `warmup` are asked twice."""
    queries = [np.array(row, dtype=np.int64) for row in rows]
    for query in queries[:warmup]:
        label_scores(model, query, answers)
    times, scores = [], []
    for query in queries:
        started = time.perf_counter()
        found = label_scores(model, query, answers)
        times.append((time.perf_counter() - started) * 1e3)
        scores.append(found)
    return times, scores


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Reads a request from stdin, writes its answer and this machine's name as the last line of stdout."""
    found = answer(json.loads(sys.stdin.read())) | {"machine": f"{platform.system()} {platform.machine()}"}
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    sys.stdout.flush()


def _log_probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    result: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum())
    return result
