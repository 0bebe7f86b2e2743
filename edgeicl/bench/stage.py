"""`edgeicl bench`: how fast and how big an artifact is on a device, in processes of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.devices.device import Device
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.figures import length_test, summarize, sustained_load, verify_run
from edgeicl.bench.noise import disagreeing_tests, objections
from edgeicl.bench.procedure import Procedure
from edgeicl.bench.quiet import busy_share
from edgeicl.bench.workload import Workload
from edgeicl.bench.workload_run import PlacedGraph, engine_on, place_artifact, probed_bytes
from edgeicl.errors import BenchError
from edgeicl.models.flops import prompt_flops
from edgeicl.models.model_folder import model_config
from edgeicl.models.prefix_file import prefix_tokens
from edgeicl.progress import track_seconds
from edgeicl.specs.measurement import BenchResult

log = logging.getLogger(__name__)

_SUSTAINED_SPARE_S = 900  # for loading, and for a last repetition that began in time


def bench(
    artifact: Path,
    workload: Workload,
    *,
    device: Device = THIS_COMPUTER,
    procedure: Procedure | None = None,
) -> BenchResult:
    """Measures the artifact in the folder `artifact` on a device; conditions are those read back.

    Lengths that don't fit the model's context are cut, with a note in the result.

    Raises:
        IntegrityError: a file of the artifact is not the one that was written. Nothing has run then.
        BenchError: the measurement failed, ran on another thread count than asked for, or was too noisy in
            every attempt; a device whose times mean nothing; a test that doesn't fit the context.
    """
    conduct = procedure or Procedure()
    if device.fidelity is None:
        raise BenchError(f"{device.address}: times mean nothing there", next_step="measure on another device")
    opened = open_artifact(artifact)
    # What stands before a prompt is read from the cache by every token, and computed by none.
    before = prefix_tokens(opened.prefixes[0]) if opened.prefixes else 0
    wanted, left_out = workload.of(generates=opened.generates)
    fitted, cut = wanted.fitted(opened.context_tokens - before)
    notes = (*left_out, *cut)
    check_tests(conduct, opened)
    for note in notes:
        log.warning(note)
    depth_tokens = before + fitted.mean_decode_depth_tokens
    bytes_per_token = None
    if fitted.decode_tokens:
        bytes_per_token = opened.weight_bytes_per_token + opened.cache_bytes(depth_tokens)
    with device.open() as bench_:
        placed = place_artifact(bench_, opened, engine=engine_on(device, opened.manifest.engine))
        outside = [("before", bench_.state())]
        run, attempts, noise = quiet_run(
            placed,
            fitted,
            conduct,
            bytes_per_token=probed_bytes(device, bytes_per_token),
            others=busy_share if device.here else lambda: None,
        )
        warm = placed.ask("load", fitted)
        cool = {"cool_down_s": conduct.cool_down_s, "start_c": run["start_c"]}
        tests = timed_tests(placed, fitted, conduct, cool)
        sustained = sustained_run(placed, fitted, conduct, cool)
        outside.append(("after", bench_.state()))
        limits = tuple(bench_.held_limits())
    result = summarize(
        run,
        opened,
        fitted,
        bytes_per_token=bytes_per_token,
        notes=(
            *notes,
            *noise,
            *disagreeing_tests({test.name: test.samples_ms for test in tests}),
            *run.get("told", ()),
            *limit_notes(run, device),
        ),
        fidelity=device.fidelity,
        address=device.address,
        limits=limits,
        outside=dict(outside),
    )
    result = result.model_copy(
        update={"attempts": attempts, "warm_load_ms": warm["load_ms"], "tests": tests, "sustained": sustained}
    )
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


def limit_notes(run: dict[str, Any], device: Device) -> tuple[str, ...]:
    """What a limit of memory means for the figures, and pages of files beyond it, which it may not count."""
    limit, peak = device.limits.memory_bytes, run["peak_rss_bytes"]
    if not limit:
        return ()
    no_probe = "the memory's bandwidth is not probed within a limit of memory: no ceiling of decode"
    if not peak or peak <= limit:
        return (no_probe,)
    return (
        no_probe,
        "peak resident memory is above the limit: pages of libraries and weights that were cached before "
        "are not counted by what holds it",
    )


def check_tests(conduct: Procedure, opened: Artifact) -> None:
    """BenchError unless the artifact can do all tests."""
    wrong = []
    for test in conduct.tests:
        if test.positions > opened.context_tokens:
            wrong.append(
                f"{test.kind}{test.tokens} at depth {test.depth} needs {test.positions} positions; expected at "
                f"most the {opened.context_tokens} of the artifact's context"
            )
        if test.kind == "tg" and not opened.generates:
            wrong.append(f"tg{test.tokens}: the artifact has logits of its labels alone; expected pp tests")
    if wrong:
        raise BenchError("\n  ".join(["tests that can't be run:", *wrong]), next_step="ask for others")


def quiet_run(
    placed: PlacedGraph,
    workload: Workload,
    conduct: Procedure,
    *,
    bytes_per_token: int | None,
    others: Callable[[], float | None] = lambda: None,
) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """The first run that nothing speaks against, which it was, and notes.

    Where noise is accepted, the last one, with what speaks against it. `others` looks what share of the cores'
    time other processes take.

    Raises:
        BenchError: something speaks against all of them, and noise is not accepted.
    """
    told: list[str] = []
    cool: dict[str, Any] = {"cool_down_s": conduct.cool_down_s}
    for attempt in range(1, conduct.attempts + 1):
        share = others()
        run = placed.ask(
            "measure",
            workload,
            bytes_per_token=bytes_per_token,
            cold=True,
            waits=workload.repetitions,
            **cool,
        )
        verify_run(run, workload.threads)
        cool["start_c"] = run["start_c"]  # the first one's, handed from run to run
        told = objections(run, [] if share is None else [share])
        if not told:
            return run, attempt, ()
        if attempt < conduct.attempts:
            log.warning("%s; measuring again", "; ".join(told))
    if conduct.accept_noise:
        return run, conduct.attempts, (f"noisy: {'; '.join(told)}",)
    raise BenchError(
        "\n  ".join([f"too noisy, in the last of {conduct.attempts} attempts:", *told]),
        next_step="end what else runs there, ask for longer prompts or more tokens, or add --accept-noise",
    )


def timed_tests(
    placed: PlacedGraph, workload: Workload, conduct: Procedure, cool: dict[str, Any]
) -> tuple[Any, ...]:
    """Every test that was asked for."""
    if not conduct.tests:
        return ()
    run = placed.ask(
        "tests",
        workload,
        tests=[test.request() for test in conduct.tests],
        waits=len(conduct.tests) * (workload.repetitions + workload.warmup_repetitions) + 1,
        **cool,
    )
    return tuple(length_test(test, taken) for test, taken in zip(conduct.tests, run["test_ms"], strict=True))


def sustained_run(placed: PlacedGraph, workload: Workload, conduct: Procedure, cool: dict[str, Any]) -> Any:
    """The load without pause, or None where none was asked for."""
    if not conduct.sustained_s:
        return None
    with track_seconds("sustained load", conduct.sustained_s):
        run = placed.ask(
            "sustain",
            workload,
            seconds=conduct.sustained_s,
            window_s=conduct.window_s,
            waits=1,
            timeout_s=conduct.sustained_s + _SUSTAINED_SPARE_S,
            **cool,
        )
    return sustained_load(run["windows"], workload, seconds=conduct.sustained_s)
