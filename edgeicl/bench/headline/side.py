"""One way to answer the queries: what its process is asked, and what its processes gave."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgeicl.bench.answer_scores import log_probabilities
from edgeicl.bench.artifact import Artifact
from edgeicl.bench.classify import task_of
from edgeicl.bench.devices.output import parse_answer
from edgeicl.bench.entrants import describe
from edgeicl.bench.headline.query_cost import QueryCost, artifact_cost, passes_of, teacher_cost, weights_held
from edgeicl.bench.headline.questions import Questions
from edgeicl.bench.rivals.environment import FoundPython
from edgeicl.bench.rivals.process import RUN_TIMEOUT_S, ask
from edgeicl.errors import BenchError
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.classification import measures
from edgeicl.numerics.voting import majority_vote
from edgeicl.specs.headline import Accuracy, Answerer, QueryRound
from edgeicl.specs.manifest import PREFIX_FILE

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
_DTYPES = {"fp32": ("float32", 4), "bf16": ("bfloat16", 2)}
_WARMUP_QUERIES = 1
_ARTIFACT = "edgeicl.bench.headline.artifact_program"
_TEACHER = "edgeicl.bench.rivals.asked_teacher"


@dataclass
class Side:
    """One way to answer: what its process is asked, and what its processes gave so far."""

    name: str
    description: str
    python: FoundPython
    program: str
    request: Mapping[str, Any]
    file_bytes: int
    query_tokens: int
    before_tokens: int
    cached: bool
    cost: QueryCost
    averages: bool
    """Whether a label's score is the mean over its tokens, not the sum."""
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def about(self) -> dict[str, Any]:
        """All that decides what its processes do."""
        return {
            "side": self.name,
            "program": self.program,
            "request": dict(self.request),
            "python": str(self.python.path),
            "versions": dict(self.python.versions),
        }

    def run(self) -> dict[str, Any]:
        """What one process more gives. BenchError where it fails, or runs on other threads than asked for."""
        threads = self.request["threads"]
        output = ask(
            self.python.path, self.program, self.request,
            who=self.name, threads=threads, timeout_s=RUN_TIMEOUT_S,
        )  # fmt: skip
        found = parse_answer(output, who=self.name, keys=("query_ms", "scores", "threads"))
        if found["threads"] != threads:
            raise BenchError(f"{self.name} ran on {found['threads']} threads; expected {threads}")
        return found

    def chosen(self, asked: Questions) -> npt.NDArray[np.int64]:
        """The label [N] of each query, by the first round."""
        scores = np.array(self.runs[0]["scores"], dtype=np.float64)
        if self.averages:
            scores /= [len(answer) for answer in self.request["answers"]]
        return majority_vote(np.where(asked.allowed, np.exp(log_probabilities(scores)), -1.0))

    def answerer(self, asked: Questions) -> Answerer:
        """What is told of it."""
        chosen = self.chosen(asked)
        data = np.array(asked.data)
        rows = []
        for name in dict.fromkeys(asked.data):
            kept = data == name
            found = measures(chosen[kept], asked.truth[kept], asked.labels)
            rows.append(
                Accuracy(
                    data=name,
                    accuracy=found.accuracy,
                    balanced_accuracy=found.balanced_accuracy,
                    examples=int(kept.sum()),
                )
            )
        return Answerer(
            name=self.name,
            description=self.description,
            file_bytes=self.file_bytes,
            query_tokens=self.query_tokens,
            before_tokens=self.before_tokens,
            cached=self.cached,
            bytes_per_query=self.cost.bytes,
            flops_per_query=self.cost.flops,
            accuracy=tuple(rows),
            rounds=tuple(
                QueryRound(
                    load_ms=run["load_ms"],
                    demonstrations_ms=run["demonstrations_ms"],
                    query_ms=median(run["query_ms"]),
                    baseline_rss_bytes=run["baseline_rss_bytes"],
                    peak_rss_bytes=run["peak_rss_bytes"],
                    query_samples_ms=tuple(run["query_ms"]),
                )
                for run in self.runs
            ),
            versions=self.runs[0].get("versions", dict(self.python.versions)),
        )


def artifact_side(opened: Artifact, asked: Questions, threads: int) -> Side:
    """The artifact: its queries stand behind its prefix, or behind nothing."""
    longest = max(map(len, asked.artifact_rows)) + max(map(len, asked.artifact_answers))
    request = {
        "model": str(opened.graph.resolve()),
        "engine": opened.manifest.engine,
        "prefix": str((opened.path / PREFIX_FILE).resolve()) if opened.prefixes else None,
        "threads": threads,
        "context_tokens": opened.prefix_tokens + longest,
        "rows": asked.artifact_rows,
        "answers": [list(answer) for answer in asked.artifact_answers],
        "warmup": _WARMUP_QUERIES,
    }
    return Side(
        name="artifact",
        description=describe(opened),
        python=FoundPython(Path(sys.executable), {}),
        program=_ARTIFACT,
        request=request,
        file_bytes=opened.model_bytes,
        query_tokens=asked.artifact_tokens,
        before_tokens=opened.prefix_tokens,
        cached=bool(opened.prefixes),
        cost=artifact_cost(opened, asked.artifact_tokens, asked.artifact_answers),
        averages=task_of(opened).score == "mean",
    )


def teacher_side(
    folder: Path,
    asked: Questions,
    precision: Precision,
    python: FoundPython,
    threads: int,
    *,
    cached: bool,
    averages: bool,
) -> Side:
    """The teacher by transformers; `cached`: keys and values of the demonstrations are computed once."""
    dtype, number_bytes = _DTYPES[precision]
    config = model_config(folder)
    passes = passes_of(asked.teacher_tokens, len(asked.demonstrations), asked.teacher_answers, cached=cached)
    how = "their keys and values computed once" if cached else "read anew with each query"
    return Side(
        name=f"teacher-{precision}{'-cached' if cached else ''}",
        description=f"transformers, eager, {precision}; demonstrations: {how}",
        python=python,
        program=_TEACHER,
        request={
            "folder": str(folder.resolve()),
            "dtype": dtype,
            "threads": threads,
            "demonstrations": asked.demonstrations,
            "cached": cached,
            "rows": asked.teacher_rows,
            "answers": [list(answer) for answer in asked.teacher_answers],
            "warmup": _WARMUP_QUERIES,
        },
        file_bytes=weights_held(config, number_bytes=number_bytes),
        query_tokens=asked.teacher_tokens,
        before_tokens=len(asked.demonstrations),
        cached=cached,
        cost=teacher_cost(config, passes, number_bytes=number_bytes),
        averages=averages,
    )
