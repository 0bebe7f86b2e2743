"""Solvers and importance methods through the command line: recipe in, checked artifact out."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeicl.specs.manifest import Manifest
from tests.e2e.small_build import Program, small_compile


@pytest.mark.parametrize("solver", ["hqq", "gptq"])
def test_an_artifact_of_each_solver_passes_its_checks(program: Program, tmp_path: Path, solver: str) -> None:
    text = 'quantize.calibration_text={source: "builtin:nli", split: train, limit: 200}'
    done = program.run(
        *small_compile(tmp_path / solver, "--set", f"quantize.solver={solver}", "--set", text),
        *("--set", "quantize.refine=1"),
    )
    assert done.returncode == 0, done.stderr
    manifest = Manifest.model_validate_json((tmp_path / solver / "edgeicl.json").read_bytes())
    assert any(entry.format.quantized for entry in manifest.plan.groups)
    assert "Refinement " in (tmp_path / solver / "report.md").read_text()
    assert f"solver: {solver}" in (tmp_path / solver / "recipe.resolved.yaml").read_text()
