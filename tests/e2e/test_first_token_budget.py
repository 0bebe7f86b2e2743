"""A limit on the predicted time until the first token, and the second copy of weights that it buys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeicl.specs.manifest import Manifest
from tests.e2e.forecast_check import forecast
from tests.e2e.small_build import SMALL, Program

ARGUMENTS = ("recipes/quickstart.yaml", *(part for override in SMALL for part in ("--set", override)))
FORMATS = ("{bits: 4, block_size: 32}", "{bits: 8, block_size: 32}", "{bits: 32}", "{bits: 8, block_size: row}")
COSTS = ", ".join(
    f"{{format: {name}, decode_ps_per_weight: 30, prompt_ps_per_weight: {200 if 'row' in name else 800}}}"
    for name in FORMATS
)
CALIBRATION = (
    f"calibration={{bandwidth_bytes_per_second: 1.0e+9, costs: [{COSTS}], measurements: 1, source: none}}"
)


def target(limit_ms: float) -> tuple[str, ...]:
    overrides = (
        CALIBRATION,
        f"budget={{artifact_bytes: 2MB, first_token_ms: {limit_ms}}}",
        f"formats=[{', '.join(FORMATS[:3])}]",
        f"prompt_format={FORMATS[3]}",
        "prompt_tokens=64",
        "instruction_features=[avx2, avx512_vnni]",
    )
    return tuple(part for override in overrides for part in ("--target-set", override))


def test_a_copy_for_prompts_is_built_checked_and_told(program: Program, artifact: Path, tmp_path: Path) -> None:
    assert artifact.exists()  # what is measured is shared with it
    free = forecast(program, [*ARGUMENTS, *target(1000.0)])["targets"][0]
    assert free["prompt_copy_bytes"] == 0
    limit = round(0.4 * free["best"]["first_token_ms"], 4)
    said = forecast(program, [*ARGUMENTS, *target(limit)])["targets"][0]
    output = tmp_path / "artifact"
    done = program.run("compile", *ARGUMENTS, *target(limit), "--no-bench", "-o", str(output))
    assert done.returncode == 0, done.stderr
    manifest = Manifest.model_validate_json((output / "edgeicl.json").read_bytes())
    plan = manifest.plan
    assert str(plan.prompt_format) == "int8/row"
    assert (plan.predicted_first_token_ms or 0.0) <= limit
    assert said["best"]["first_token_ms"] == pytest.approx(plan.predicted_first_token_ms, rel=0.05)
    assert said["best"]["artifact_bytes"] == pytest.approx(plan.predicted_artifact_bytes, rel=0.05)
    copied = [entry for entry in manifest.ledger if entry.name.startswith("prompt.")]
    assert sum(entry.bytes for entry in copied) == said["prompt_copy_bytes"]
    assert sum(entry.bytes for entry in manifest.ledger) <= plan.predicted_artifact_bytes
    weights = sum(entry.bytes for entry in manifest.ledger if entry.file == "model.onnx.data")
    assert weights == plan.predicted_weight_bytes == (output / "model.onnx.data").stat().st_size
    assert any(check.name.startswith("integer product, prompt.") for check in manifest.parity)
    assert "genai" not in json.dumps([entry.model_dump() for entry in manifest.deviations])
    assert "second copy of the layers, to read prompts with" in (output / "report.md").read_text()


def test_a_limit_without_costs_is_refused(program: Program) -> None:
    done = program.run("plan", *ARGUMENTS, "--target-set", "budget={first_token_ms: 5}")
    assert done.returncode == 2
    assert "calibration.costs lacks int2/block64" in done.stderr
