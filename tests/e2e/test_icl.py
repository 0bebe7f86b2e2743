"""In-context learning distillation from its recipes to artifacts that carry their demonstrations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeicl.specs.manifest import Manifest
from tests.e2e.forecast_check import check_forecast
from tests.e2e.small_build import Program

SMALL = (
    "task.train.limit=200",
    "task.in_domain.limit=40",
    "task.out_of_domain=null",
    "distill.demonstrations={count: 4, seeds: [0, 1]}",
    "distill.icl.episodes=32",
    "distill.training={learning_rate: 1.0e-3, epochs: 1, batch_size: 16, checkpoint_every_steps: 1}",
    "distill.baseline_epochs=1",
    "quantize.calibration_examples=4",
    "limits.accuracy_drop_points=20",
)
METHODS = {
    *("zero-shot student", "in-context student", "pattern-based fine-tuning", "in-context tuning"),
    *("in-context learning distillation", "zero-shot teacher", "in-context teacher"),
}


@pytest.mark.parametrize("name", ["icl-meta", "icl-multitask"])
def test_from_recipe_to_artifact(program: Program, tmp_path: Path, name: str) -> None:
    output = tmp_path / "artifact"
    overrides = [part for override in SMALL for part in ("--set", override)]
    command = ["compile", f"recipes/{name}.yaml", "-o", str(output), "--no-bench", *overrides]
    done = program.run(*command)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.model_validate_json((output / "edgeicl.json").read_bytes())
    assert manifest.evaluation is not None
    assert {row.method for row in manifest.evaluation.rows} == METHODS
    assert "in-context learning distillation" in (output / "report.md").read_text()
    assert "prefix.safetensors" in manifest.files  # the demonstration sets, as keys and values
    columns = ("premise=the dog chased the cat today", "hypothesis=the dog chased the cat")
    answer = program.run("run", str(output), *columns, "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["label"] in {"entailment", "contradiction"}
    again = program.run(*command)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("unchanged, skipped") == 3
    check_forecast(program, [f"recipes/{name}.yaml", *overrides], manifest, tmp_path / "cache")


def test_the_target_among_the_tuned_tasks_is_refused(program: Program) -> None:
    task = "{train: {source: 'builtin:nli/action', split: validation}}"
    done = program.run("check", "recipes/icl-meta.yaml", "--set", f"distill.icl.tasks=[{task}]")
    assert done.returncode == 2
    assert "distill.icl.tasks[0] reads builtin:nli/action (validation), which is the target task" in done.stderr
