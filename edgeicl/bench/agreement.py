"""`edgeicl bench --on qemu:CORE`: whether an artifact computes there what it computes here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.answers import unpacked
from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.devices.device import Device
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.protocol import token_trace
from edgeicl.bench.workload_run import place_artifact
from edgeicl.specs.agreement import Agreement, Side
from edgeicl.specs.quant_plan import QuantPlan

_TIMEOUT_S = 300

EXACT = (1e-4, "floating point: sums are added up in another order")
ROUNDED = (
    0.06,
    "inputs of quantized products are rounded to 8 bits, and kernels of different instructions round a few of "
    "them to neighbouring values",
)


def agreement(
    artifact: Path, device: Device, *, threads: int = 1, prompt_tokens: int = 24, decode_tokens: int = 8
) -> Agreement:
    """Logits of one prompt and of tokens after it, there and here; lengths are cut to the artifact's context.

    Raises:
        IntegrityError: a file of the artifact is not the one that was written. Nothing has run then.
        BenchError: the device is not ready, or the artifact doesn't run there.
    """
    opened = open_artifact(artifact)
    room = opened.context_tokens - opened.prefix_tokens
    prompt = min(prompt_tokens, room)
    steps = min(decode_tokens, room - prompt) if opened.generates else 0
    trace = token_trace(prompt + steps, opened.vocabulary).tolist()
    asked = {"prompt": trace[:prompt], "steps": trace[prompt:], "threads": threads}
    there, here = (_logits(opened, where, asked) for where in (device, THIS_COMPUTER))
    found, expected = unpacked(there["logits"]), unpacked(here["logits"])
    difference = found.astype(np.float64) - expected
    tolerance, why = tolerance_of(opened.manifest.plan)
    return Agreement(
        device=_side(device.address, there),
        here=_side(THIS_COMPUTER.address, here),
        artifact_sha256=opened.sha256,
        formats=tuple(sorted({str(group.format) for group in opened.manifest.plan.groups})),
        prefix_tokens=opened.prefix_tokens,
        prompt_tokens=prompt,
        decode_tokens=steps,
        relative_error=float(np.linalg.norm(difference) / np.linalg.norm(expected)),
        largest_difference=float(np.abs(difference).max()),
        same_choice=float((found.argmax(axis=-1) == expected.argmax(axis=-1)).mean()),
        tolerance=tolerance,
        why=why,
    )


def tolerance_of(plan: QuantPlan) -> tuple[float, str]:
    """Largest relative error of logits between two processors, and why so much."""
    exact = plan.cache_bits == 32 and not any(group.format.quantized for group in plan.groups)
    return EXACT if exact else ROUNDED


def _logits(opened: Artifact, device: Device, asked: dict[str, Any]) -> dict[str, Any]:
    with device.open() as bench:
        return place_artifact(bench, opened).answer("logits", timeout_s=_TIMEOUT_S, **asked)


def _side(address: str, found: dict[str, Any]) -> Side:
    return Side(
        address=address,
        machine=found["machine"],
        features=tuple(found["features"]),
        runtime_version=found["runtime_version"],
        providers=tuple(found["providers"]),
    )
