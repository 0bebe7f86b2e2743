"""`edgeicl bench`: how fast and how big an artifact is on a device, in a process of its own."""

from __future__ import annotations

import logging
from pathlib import Path
from statistics import median
from typing import Any

from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.conditions import read_back_conditions
from edgeicl.bench.devices.device import Device
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.summary import (
    NOISY_SPREAD_RATIO,
    ceiling_tokens_per_second,
    percentiles,
    prefill_tokens_per_second,
    spread_ratio,
    tokens_per_second,
)
from edgeicl.bench.workload import Workload
from edgeicl.bench.workload_run import run_workload
from edgeicl.errors import BenchError
from edgeicl.models.flops import prompt_flops
from edgeicl.models.model_folder import model_config
from edgeicl.models.prefix_file import prefix_tokens
from edgeicl.specs.manifest import PREFIX_FILE
from edgeicl.specs.measurement import BenchResult

log = logging.getLogger(__name__)


def bench(artifact: Path, workload: Workload, *, device: Device = THIS_COMPUTER) -> BenchResult:
    """Measures the artifact in the folder `artifact` on a device; conditions are those read back.

    Lengths that don't fit the model's context are cut, with a note in the result.

    Raises:
        IntegrityError: a file of the artifact is not the one that was written. Nothing has run then.
        BenchError: the measurement failed, or ran on another thread count than asked for.
    """
    opened = open_artifact(artifact)
    # What stands before a prompt is read from the cache by every token, and computed by none.
    before = prefix_tokens(opened.prefixes[0]) if opened.prefixes else 0
    wanted, left_out = workload.of(generates=opened.generates)
    fitted, cut = wanted.fitted(opened.context_tokens - before)
    notes = (*left_out, *cut)
    for note in notes:
        log.warning(note)
    depth_tokens = before + fitted.mean_decode_depth_tokens
    bytes_per_token = None
    if fitted.decode_tokens:
        bytes_per_token = opened.weight_bytes_per_token + opened.cache_bytes(depth_tokens)
    run = run_workload(
        graph=opened.graph,
        engine=opened.manifest.engine,
        workload=fitted,
        vocabulary=opened.vocabulary,
        bytes_per_token=bytes_per_token,
        prefix=opened.path / PREFIX_FILE if before else None,
        device=device,
    )
    result = summarize(run, opened, fitted, bytes_per_token=bytes_per_token, notes=notes)
    if opened.manifest.engine == "growing":
        return result  # operations are counted by an architecture's anatomy
    config, prompt = model_config(artifact), fitted.prompt_tokens
    logits = len(opened.manifest.logit_tokens) if opened.manifest.logit_tokens else None
    return result.model_copy(
        update={
            "prompt_flops": prompt_flops(config, tokens=prompt, before=before, logits=logits),
            "whole_prompt_flops": prompt_flops(config, tokens=before + prompt, logits=logits)
            if before
            else None,
        }
    )


def summarize(
    run: dict[str, Any],
    opened: Artifact,
    workload: Workload,
    *,
    bytes_per_token: int | None,
    notes: tuple[str, ...],
) -> BenchResult:
    """The figures of one run of the runner.

    Raises:
        BenchError: it ran on another thread count than asked for, or the system didn't tell its memory.
    """
    verify_threads(run, workload.threads)
    if run["peak_rss_bytes"] is None:
        raise BenchError("this system doesn't tell the peak memory of a process; expected Linux or macOS")
    speeds = tokens_per_second(run["decode_ms"])
    spread = spread_ratio(speeds or [1e3 / first for first in run["first_token_ms"]])
    if spread is None:
        notes += ("one repetition only: the spread is unknown",)
    elif spread > NOISY_SPREAD_RATIO:
        notes += (
            f"noisy: {'decode' if speeds else 'prefill'} speed varied by {spread:.0%} between repetitions "
            f"(above {NOISY_SPREAD_RATIO:.0%}); something else was running",
        )
    memory, token, probe = fastest_probes(run["bandwidth"])
    best = max((value for value in (memory, token) if value is not None), default=None)
    ceiling = None
    if best is not None and bytes_per_token is not None:
        ceiling = ceiling_tokens_per_second(best, bytes_per_token)
    return BenchResult(
        fidelity="measured",
        conditions=read_back_conditions(run, workload, artifact_sha256=opened.sha256),
        load_ms=run["load_ms"],
        first_token_ms=median(run["first_token_ms"]),
        prefill_tokens_per_second=prefill_tokens_per_second(run["first_token_ms"], workload.prompt_tokens),
        decode_tokens_per_second=median(speeds) if speeds else None,
        decode_latency=percentiles(run["decode_ms"]),
        peak_rss_bytes=run["peak_rss_bytes"],
        artifact_bytes=opened.artifact_bytes,
        bytes_per_token=bytes_per_token,
        bandwidth_bytes_per_second=memory,
        token_bandwidth_bytes_per_second=token,
        bandwidth_probe=probe,
        ceiling_tokens_per_second=ceiling,
        first_token_samples_ms=tuple(run["first_token_ms"]),
        decode_samples_ms=tuple(tuple(row) for row in run["decode_ms"]),
        spread_ratio=spread,
        baseline_rss_bytes=run["baseline_rss_bytes"],
        notes=notes,
    )


def verify_threads(run: dict[str, Any], asked: int) -> None:
    """BenchError unless the session, and the threads counted around it, are those asked for."""
    for what, found in (("session", run["threads"]), ("process", run["pool_threads"])):
        if found is not None and found != asked:
            raise BenchError(f"the runner's {what} has {found} threads; expected {asked}")


def fastest_probes(bandwidth: dict[str, Any] | None) -> tuple[float | None, float | None, str | None]:
    """Memory and working-set bandwidth by their fastest probes, and the name of memory's."""
    if bandwidth is None:
        return None, None, None
    memory: dict[str, float] = bandwidth["memory"]
    token: dict[str, float] = bandwidth["token"]
    name = max(memory, key=lambda probe: memory[probe])
    return memory[name], max(token.values()), name
