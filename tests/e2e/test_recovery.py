"""`quantize.recover` by the command line: forecast, built, checked as any artifact, told in the report."""

from __future__ import annotations

import json
from pathlib import Path

from edgeicl.specs.manifest import Manifest
from tests.e2e.forecast_check import forecast
from tests.e2e.small_build import SMALL, Program, small_compile

RECOVER = (
    *("--set", "quantize.recover={steps: 10, own_texts: 8}"),
    *("--target-set", "budget.artifact_bytes=240kB"),
)
ARGUMENTS = ("recipes/quickstart.yaml", *(part for override in SMALL for part in ("--set", override)), *RECOVER)


def states(program: Program) -> dict[str, str]:
    ahead = forecast(program, [*ARGUMENTS])["targets"][0]["stages"]
    return {entry["stage"]: entry["state"] for entry in ahead}


def test_a_recovered_artifact_passes_its_checks(program: Program, artifact: Path, tmp_path: Path) -> None:
    """After the ordinary build, whose student it shares."""
    assert artifact.exists()
    assert list(states(program)) == ["importance", "quantize", "recover", "emit", "benchmark", "report"]
    done = program.run(*small_compile(tmp_path / "out", *RECOVER))
    assert done.returncode == 0, done.stderr
    assert "recover for tiny-cpu" in done.stderr
    assert states(program)["recover"] == "in the store"
    manifest = Manifest.model_validate_json((tmp_path / "out" / "edgeicl.json").read_bytes())
    assert min(entry.format.bits for entry in manifest.plan.groups) <= 4
    by_file: dict[str, int] = {}
    for entry in manifest.ledger:
        by_file[entry.file] = by_file.get(entry.file, 0) + entry.bytes
    assert by_file == {name: (tmp_path / "out" / name).stat().st_size for name in by_file}
    assert sum(by_file.values()) <= 240_000
    assert "Recovery" in (tmp_path / "out" / "report.md").read_text()


def test_wrong_keys_are_named(program: Program) -> None:
    done = program.run("check", "quickstart", "--set", "quantize.recover={stepz: 3}", "--json")
    assert done.returncode == 2
    keys = {problem["key"] for problem in json.loads(done.stdout)["problems"]}
    assert keys == {"quantize.recover.steps", "quantize.recover.stepz"}
