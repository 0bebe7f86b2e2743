"""A limit on the predicted time of a decoded token, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeicl.specs.manifest import Manifest
from tests.e2e.forecast_check import forecast
from tests.e2e.small_build import SMALL, Program

ARGUMENTS = ("recipes/quickstart.yaml", *(part for override in SMALL for part in ("--set", override)))
CALIBRATION = (
    "calibration={bandwidth_bytes_per_second: 1.0e+8, fixed_decode_ms: 1, measurements: 1, source: none}"
)


def target(limit_ms: float) -> tuple[str, ...]:
    budget = f"budget={{artifact_bytes: 1MB, decode_ms: {limit_ms}}}"
    return ("--target-set", CALIBRATION, "--target-set", budget)


def test_the_limit_is_kept_and_said_before(program: Program, artifact: Path, tmp_path: Path) -> None:
    assert artifact.exists()  # what is measured is shared with it
    free = forecast(program, [*ARGUMENTS, *target(1000.0)])["targets"][0]
    fastest, slowest = free["smallest"]["decode_ms"], free["largest"]["decode_ms"]
    assert 1.0 < fastest < slowest == pytest.approx(free["best"]["decode_ms"])
    limit = round((2 * fastest + slowest) / 3, 3)
    said = forecast(program, [*ARGUMENTS, *target(limit)])["targets"][0]["best"]
    output = tmp_path / "artifact"
    done = program.run("compile", *ARGUMENTS, *target(limit), "--no-bench", "-o", str(output))
    assert done.returncode == 0, done.stderr
    manifest = Manifest.model_validate_json((output / "edgeicl.json").read_bytes())
    found = manifest.plan.predicted_decode_ms
    assert found is not None
    assert 0.9 * limit < found <= limit
    assert said["decode_ms"] == pytest.approx(found, rel=0.05)
    assert json.loads((output / "plan.json").read_text())["predicted_decode_ms"] == found
    assert "a decoded token on the target, predicted" in (output / "report.md").read_text()


def test_a_time_that_no_plan_keeps_is_refused(program: Program, tmp_path: Path) -> None:
    for command in (["plan"], ["compile", "-o", str(tmp_path / "out")]):
        done = program.run(*command, *ARGUMENTS, *target(2.0))
        assert done.returncode == 4
        assert "budget.decode_ms is 2, but the fastest plan of its formats takes" in done.stderr
        assert "set budget.decode_ms of target tiny-cpu to at least" in done.stderr
    done = program.run("plan", *ARGUMENTS, "--target-set", "budget={decode_ms: 5}")
    assert done.returncode == 2
    assert "there is no calibration to predict it by" in done.stderr
