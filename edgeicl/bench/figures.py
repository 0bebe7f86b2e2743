"""From the runner's answers to the figures of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

from edgeicl.bench.artifact import Artifact
from edgeicl.bench.conditions import read_back_conditions
from edgeicl.bench.noise import remarks
from edgeicl.bench.procedure import AskedTest
from edgeicl.bench.summary import (
    ceiling_tokens_per_second,
    percentiles,
    prefill_tokens_per_second,
    spread_ratio,
    timed_speeds,
    tokens_per_second,
)
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError
from edgeicl.specs.measurement import (
    BenchResult,
    DeviceFacts,
    DeviceState,
    Fidelity,
    LengthTest,
    Sustained,
    SustainedWindow,
)


def summarize(
    run: dict[str, Any],
    opened: Artifact,
    workload: Workload,
    *,
    bytes_per_token: int | None,
    notes: tuple[str, ...],
    fidelity: Fidelity = "measured",
    address: str = "local",
    limits: tuple[str, ...] = (),
    outside: Mapping[str, Mapping[str, Any]] | None = None,
) -> BenchResult:
    """The figures of one run of the runner.

    `outside`: what the device's own tools told, by `when` of a state.

    Raises:
        BenchError: as in `verify_run`.
    """
    verify_run(run, workload.threads)
    speeds = tokens_per_second(run["decode_ms"])
    memory, token, probe = fastest_probes(run["bandwidth"])
    best = max((value for value in (memory, token) if value is not None), default=None)
    ceiling = None
    if best is not None and bytes_per_token is not None:
        ceiling = ceiling_tokens_per_second(best, bytes_per_token)
    told = outside or {}
    return BenchResult(
        fidelity=fidelity,
        conditions=read_back_conditions(run, workload, artifact_sha256=opened.sha256),
        load_ms=run["load_ms"],
        cold_load_ms=run["load_ms"] if run["pages_dropped"] else None,
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
        spread_ratio=spread_ratio(next(iter(timed_speeds(run).values()))),
        baseline_rss_bytes=run["baseline_rss_bytes"],
        cooled_s=run["cooled_s"],
        device=DeviceFacts(address=address, limits=limits, **run["device"]),
        states=tuple(
            DeviceState(**state, told_by_tools=dict(told.get(state["when"], {}))) for state in run["states"]
        ),
        notes=(*notes, *remarks(run)),
    )


def length_test(test: AskedTest, taken_ms: Sequence[float]) -> LengthTest:
    """llama-bench's row of one test."""
    speeds = [1e3 * test.tokens / taken for taken in taken_ms]
    return LengthTest.model_validate(
        {
            **test.request(),
            "samples_ms": tuple(taken_ms),
            "tokens_per_second": mean(speeds),
            "tokens_per_second_deviation": stdev(speeds) if len(speeds) > 1 else None,
        }
    )


def sustained_load(windows: Sequence[Mapping[str, Any]], workload: Workload, *, seconds: float) -> Sustained:
    """Speeds by window; the ratio is of decode where something is decoded."""
    found = tuple(
        SustainedWindow(
            start_s=window["start_s"],
            end_s=window["end_s"],
            prefill_tokens_per_second=prefill_tokens_per_second(
                window["first_token_ms"], workload.prompt_tokens
            ),
            decode_tokens_per_second=1e3 * workload.decode_tokens / median(window["decode_ms"])
            if workload.decode_tokens
            else None,
            state=DeviceState(when=f"after {window['end_s']:.0f} s", **window["state"]),
        )
        for window in windows
    )
    first, last = (
        window.decode_tokens_per_second or window.prefill_tokens_per_second for window in (found[0], found[-1])
    )
    return Sustained(seconds=seconds, windows=found, last_over_first=last / first)


def verify_run(run: Mapping[str, Any], threads: int) -> None:
    """BenchError where it ran on other threads than asked for, or the system doesn't tell its memory."""
    verify_threads(run, threads)
    if threads > run["logical_cores"]:
        raise BenchError(
            f"{threads} threads ran on {run['logical_cores']} cores, and waited for each other",
            next_step="ask for fewer with --threads",
        )
    if run["peak_rss_bytes"] is None:
        raise BenchError("this system doesn't tell the peak memory of a process; expected Linux or macOS")


def verify_threads(run: Mapping[str, Any], asked: int) -> None:
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
