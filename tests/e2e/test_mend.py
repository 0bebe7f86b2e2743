"""Method mend by the command line: from a recipe to an artifact, and new demonstrations for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeicl.specs.manifest import Manifest
from edgeicl.store import file_sha256
from tests.e2e.forecast_check import check_forecast
from tests.e2e.small_build import Program

SMALL = (
    "task.train.limit=300",
    "task.in_domain.limit=40",
    "task.out_of_domain.limit=40",
    "distill.transfer_examples=64",
    "distill.demonstrations={count: 4, seeds: [0, 1]}",
    "distill.text.limit=30",
    "distill.mend.hypernetwork.model=builtin:nli-student",
    "distill.mend.on_text={steps: 3, batch_size: 2}",
    "distill.mend.on_tasks={steps: 3, batch_size: 2, queries: 2}",
    "distill.mend.tasks.0.train.limit=60",
    "distill.mend.tasks.1.train.limit=60",
    "distill.require_gain=false",
    "distill.baseline_epochs=1",
    "quantize.calibration_examples=4",
    "limits={accuracy_drop_points: 30, accuracy_examples: 40}",
)
NEW = ("--demonstrations", "builtin:nli/today", "--split", "train", "--limit", "60", "--count", "6")


ARGUMENTS = ("recipes/mend.yaml", *(part for override in SMALL for part in ("--set", override)))


@pytest.fixture(scope="module")
def built(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("mend") / "artifact"
    done = program.run("compile", *ARGUMENTS, "-o", str(output), "--no-bench")
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def manifest(built: Path) -> Manifest:
    return Manifest.model_validate_json((built / "edgeicl.json").read_bytes())


def test_the_plan_before_the_build_counted_the_vectors(
    program: Program, manifest: Manifest, tmp_path: Path
) -> None:
    check_forecast(program, ARGUMENTS, manifest, tmp_path / "cache")


def test_the_hypernetwork_is_kept_and_counts_in_no_budget(built: Path, manifest: Manifest) -> None:
    kept = {name for name in manifest.files if name.startswith("compressor/")}
    assert {"compressor/model.safetensors", "compressor/vectors.safetensors"} <= kept
    assert all(file_sha256(built / name) == manifest.files[name] for name in kept)
    deployed = {entry.file for entry in manifest.ledger}
    assert "prefix.safetensors" in deployed
    assert not any(name.startswith("compressor") for name in deployed)


def test_vectors_stand_before_every_query(program: Program, built: Path, manifest: Manifest) -> None:
    task = json.loads((built / "task.json").read_text())
    assert task["prefix"]["kind"] == "vectors"
    assert task["prefix"]["tokens"] == [8]
    assert any("behind set 0" in check.name for check in manifest.parity)
    assert manifest.evaluation is not None
    assert manifest.evaluation.query_cost is not None
    assert "MEND" in {row.method for row in manifest.evaluation.rows}
    assert "floating-point operations behind 4 plain demonstrations" in (built / "report.md").read_text()
    pair = ("premise=the dog chased the cat today", "hypothesis=the dog chased the cat")
    done = program.run("run", str(built), *pair, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["probabilities"]) == {"entailment", "contradiction"}


def test_new_demonstrations_without_training(program: Program, built: Path, tmp_path: Path) -> None:
    output = tmp_path / "new"
    done = program.run("prefix", str(built), *NEW, "-o", str(output))
    assert done.returncode == 0, done.stderr
    before, after = (load_file(folder / "prefix.safetensors") for folder in (built, output))
    rows = [name for name in before if "key" in name or "value" in name]
    assert rows
    assert {name: before[name].shape for name in rows} == {name: after[name].shape for name in rows}
    assert max(float(np.abs(before[name] - after[name]).max()) for name in rows) > 0
    again = program.run("prefix", str(output), *NEW)
    assert again.returncode == 0, again.stderr  # what it needs is still there
    asked = ("--data", "builtin:nli/today", "--split", "test", "--limit", "20")
    assert program.run("eval", str(output), *asked).returncode == 0


def test_a_damaged_hypernetwork_compresses_nothing(program: Program, built: Path, tmp_path: Path) -> None:
    output = tmp_path / "damaged"
    assert program.run("prefix", str(built), *NEW, "-o", str(output)).returncode == 0
    parts = output / "compressor" / "vectors.safetensors"
    parts.write_bytes(parts.read_bytes()[:-1] + b"\x00")
    done = program.run("prefix", str(output), *NEW)
    assert done.returncode == 8
    assert "compressor/vectors.safetensors" in done.stderr


def test_demonstrations_that_the_hypernetwork_can_not_read_are_refused(program: Program, built: Path) -> None:
    many = [*NEW[:4], "--limit", "100", "--count", "30"]
    done = program.run("prefix", str(built), *many)
    assert done.returncode == 7
    assert "found room for 312, beside the 8 vectors that it becomes" in done.stderr
