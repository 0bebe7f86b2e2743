"""What `edgeicl plan` says before a build, beside what the build gave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeicl.specs.manifest import Manifest
from tests.e2e.small_build import Program

TOLERANCE = 0.05


def forecast(program: Program, arguments: Sequence[str]) -> dict[str, Any]:
    """Of a build with these arguments of `edgeicl compile` (without `-o`)."""
    done = program.run("plan", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_forecast(program: Program, arguments: Sequence[str], manifest: Manifest, cache: Path) -> None:
    """The build's bytes are within the tolerance of what is said on an empty cache, which stays empty."""
    found = forecast(Program(cache), arguments)
    assert not cache.exists()
    (target,) = found["targets"]
    artifact_bytes = sum(entry.bytes for entry in manifest.ledger)
    assert abs(target["best"]["artifact_bytes"] / artifact_bytes - 1) < TOLERANCE
    resident = target["best"]["resident_bytes"] / manifest.plan.predicted_resident_bytes
    assert abs(resident - 1) < TOLERANCE
    # Most of the memory of so small a model is the runtime's: beside the rest alone, it must be right too.
    runtime = target["runtime_overhead_bytes"]
    held = (target["best"]["resident_bytes"] - runtime, manifest.plan.predicted_resident_bytes - runtime)
    assert abs(held[0] / held[1] - 1) < TOLERANCE
    assert target["measured"] == 0
    # Afterwards everything is in the store, and nothing else is expected.
    after = forecast(program, arguments)
    assert {entry["state"] for entry in after["stages"]} == {"in the store"}
    assert [entry["state"] for entry in after["targets"][0]["stages"]] == 3 * ["in the store"] + 2 * [
        "every time"
    ]
    assert after["targets"][0]["to_measure"] == 0
