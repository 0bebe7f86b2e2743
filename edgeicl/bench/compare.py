"""`edgeicl compare`: an artifact beside a rival on the same machine, threads and lengths, in turn.

One process at a time, ours then theirs and again: whatever else the machine does hits both alike, and the
ratio of each pair shows it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.conditions import read_back_conditions
from edgeicl.bench.local import run_local
from edgeicl.bench.rival import RIVALS, build_rival
from edgeicl.bench.stage import verify_threads
from edgeicl.bench.summary import (
    NOISY_SPREAD_RATIO,
    prefill_tokens_per_second,
    tokens_per_second,
)
from edgeicl.bench.workload import Workload
from edgeicl.errors import Problem, SpecError
from edgeicl.progress import track
from edgeicl.specs.comparison import Comparison, Contestant, Ratio, Round
from edgeicl.specs.manifest import MODEL_FILE, WEIGHTS_FILE
from edgeicl.specs.measurement import Conditions
from edgeicl.store import Store

log = logging.getLogger(__name__)


def compare(
    artifact: Path,
    workload: Workload,
    *,
    rival: str,
    model: Path | None,
    store: Store,
    rounds: int = 3,
    exporter_python: Path | None = None,
) -> Comparison:
    """The artifact in the folder `artifact` against `rival`, over `rounds` pairs of processes.

    Args:
        model: Checkpoint folder that the rival is built from; without one it has random weights of the
            artifact's shape, which run just as fast.
        store: Where the built rival is kept for the next time.
        exporter_python: Interpreter that has optimum-onnx; this one unless given.

    Raises:
        SpecError: an unknown rival.
        IntegrityError: a file of the artifact is not the one that was written.
        BenchError: the rival could not be built, or a measurement failed.
    """
    if rival not in RIVALS:
        problem = Problem("--with", f"there is no rival {rival!r}", f"expected one of {', '.join(RIVALS)}")
        raise SpecError("compare", [problem])
    opened = open_artifact(artifact)
    wanted, left_out = workload.of(generates=opened.generates)
    fitted, cut = wanted.fitted(opened.context_tokens)
    notes = (*left_out, *cut)
    if opened.prefixes:
        notes += ("the artifact was measured without the prefix that stands before its queries",)
    config = json.loads((artifact / "config.json").read_text())
    rival_graph = build_rival(rival, config, model=model, store=store, exporter_python=exporter_python)

    def run(engine: str, graph: Path, bytes_per_token: int | None = None) -> dict[str, Any]:
        found = run_local(
            graph=graph,
            engine=engine,
            workload=fitted,
            vocabulary=opened.vocabulary,
            bytes_per_token=bytes_per_token,
        )
        verify_threads(found, fitted.threads)
        return found

    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    with track("rounds", 2 * rounds) as advance:
        for _ in range(rounds):
            ours.append(run(opened.manifest.engine, opened.graph, opened.weight_bytes_per_token))
            advance(1)
            theirs.append(run("growing", rival_graph))
            advance(1)
    return summarize_comparison(
        our_rounds=[round_of(found, fitted.prompt_tokens) for found in ours],
        rival_rounds=[round_of(found, fitted.prompt_tokens) for found in theirs],
        conditions=read_back_conditions(ours[0], fitted, artifact_sha256=opened.sha256),
        our_description=describe(opened),
        our_bytes=sum((artifact / name).stat().st_size for name in (MODEL_FILE, WEIGHTS_FILE)),
        rival=rival,
        rival_weights=f"weights of {model.name}" if model else "random weights of the same shape",
        rival_bytes=rival_graph.stat().st_size,
        bandwidths=[max(found["bandwidth"]["memory"].values()) for found in ours],
        notes=notes,
    )


def describe(opened: Artifact) -> str:
    """The artifact by name and formats."""
    formats = sorted({str(entry.format) for entry in opened.manifest.plan.groups})
    return f"{opened.manifest.name} for {opened.manifest.target}: {', '.join(formats)}"


def round_of(run: dict[str, Any], prompt_tokens: int) -> Round:
    """The figures of one process."""
    speeds = tokens_per_second(run["decode_ms"])
    return Round(
        load_ms=run["load_ms"],
        first_token_ms=median(run["first_token_ms"]),
        prefill_tokens_per_second=prefill_tokens_per_second(run["first_token_ms"], prompt_tokens),
        decode_tokens_per_second=median(speeds) if speeds else None,
        peak_rss_bytes=run["peak_rss_bytes"],
        first_token_samples_ms=tuple(run["first_token_ms"]),
        decode_samples_ms=tuple(tuple(row) for row in run["decode_ms"]),
    )


def summarize_comparison(
    *,
    our_rounds: Sequence[Round],
    rival_rounds: Sequence[Round],
    conditions: Conditions,
    our_description: str,
    our_bytes: int,
    rival: str,
    rival_weights: str,
    rival_bytes: int,
    bandwidths: Sequence[float],
    notes: tuple[str, ...],
) -> Comparison:
    """Ratios of the rounds, pair by pair, with a note where they disagree."""
    prefill = ratio(
        [entry.prefill_tokens_per_second for entry in our_rounds],
        [entry.prefill_tokens_per_second for entry in rival_rounds],
    )
    speeds = [
        [entry.decode_tokens_per_second for entry in rounds if entry.decode_tokens_per_second is not None]
        for rounds in (our_rounds, rival_rounds)
    ]
    decode = ratio(*speeds) if any(speeds) else None
    what, found = ("prefill", prefill) if decode is None else ("decode", decode)
    if (found.high - found.low) / found.median > NOISY_SPREAD_RATIO:
        notes += (
            f"noisy: the {what} ratio lies between {found.low:.2f} and {found.high:.2f}; "
            "something else was running",
        )
    return Comparison(
        fidelity="measured",
        conditions=conditions,
        ours=Contestant(
            name="edgeicl", description=our_description, file_bytes=our_bytes, rounds=tuple(our_rounds)
        ),
        rival=Contestant(
            name=rival,
            description=f"{RIVALS[rival]}; {rival_weights}",
            file_bytes=rival_bytes,
            rounds=tuple(rival_rounds),
        ),
        bandwidth_bytes_per_second=median(bandwidths),
        decode_ratio=decode,
        prefill_ratio=prefill,
        peak_rss_ratio=ratio(
            [entry.peak_rss_bytes for entry in our_rounds], [entry.peak_rss_bytes for entry in rival_rounds]
        ),
        notes=notes,
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ours over theirs, pair by pair."""
    values = tuple(our / their for our, their in zip(ours, theirs, strict=True))
    return Ratio(median=median(values), low=min(values), high=max(values), values=values)
