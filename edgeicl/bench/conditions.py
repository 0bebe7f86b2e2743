"""The conditions of a run, as the runner read them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeicl.bench.workload import Workload
from edgeicl.specs.measurement import Conditions
from edgeicl.specs.target import Target


def read_back_conditions(run: Mapping[str, Any], workload: Workload, *, artifact_sha256: str) -> Conditions:
    """From the JSON of one run of `bench.runner`."""
    return Conditions(
        machine=run["machine"],
        processor=run["processor"],
        logical_cores=run["logical_cores"],
        threads=run["threads"],
        runtime=run["runtime"],
        runtime_version=run["runtime_version"],
        providers=tuple(run["providers"]),
        artifact_sha256=artifact_sha256,
        prefix_tokens=run["prefix_tokens"],
        prompt_tokens=workload.prompt_tokens,
        decode_tokens=workload.decode_tokens,
        warmup_repetitions=workload.warmup_repetitions,
        repetitions=workload.repetitions,
        least_s=workload.least_s,
    )


def whereabouts(at: Conditions, target: Target) -> str:
    """Where a measurement was taken, and that it was not on the target where the processors differ in kind."""
    of_x86 = [feature.startswith(("avx", "sse", "amx")) for feature in target.instruction_features]
    differs = bool(of_x86) and any(of_x86) != at.machine.lower().endswith(("x86_64", "amd64"))
    if target.provider == "cuda":
        differs = "CUDAExecutionProvider" not in at.providers
    return f"on this computer ({at.machine}, {at.processor})" + ", not on the target" * differs
