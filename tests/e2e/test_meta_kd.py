"""The Meta-KD recipe, made small, from the command line to a checked artifact; and on two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgeicl.models.model_folder import model_folder
from tests.e2e.small_build import REPOSITORY, Program
from tests.trained_weights import ROUNDING, relative_difference, weights_in

SMALL = (
    "task.train.limit=70",
    "task.in_domain.limit=40",
    "distill.demonstrations.count=2",
    "distill.demonstrations.seeds=[0]",
    "distill.training.epochs=1",
    "distill.baseline_epochs=1",
    "distill.meta_kd.domain_examples=8",
    "distill.meta_kd.teacher_steps=4",
    "distill.meta_kd.matching.epochs=1",
    "distill.meta_kd.baselines=[single_domain]",
    "quantize.calibration_examples=4",
    "limits.accuracy_drop_points=20",
)


def small_meta_kd(output: Path) -> list[str]:
    overrides = [part for override in SMALL for part in ("--set", override)]
    return ["compile", "recipes/meta-kd.yaml", "-o", str(output), "--no-bench", *overrides]


def test_from_recipe_to_artifact_on_one_process_and_on_two(tmp_path: Path) -> None:
    one, two = Program(tmp_path / "one"), Program(tmp_path / "two")
    done = one.run(*small_meta_kd(tmp_path / "artifact"))
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "artifact/edgeicl.json").read_text())
    methods = {row["method"] for row in manifest["evaluation"]["rows"]}
    assert {"Meta-KD", "meta-teacher", "single-domain distillation", "in-context student"} <= methods
    assert "method `meta_kd`" in (tmp_path / "artifact/README.md").read_text()

    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "edgeicl", *small_meta_kd(tmp_path / "artifact-of-two")),
        ],
        capture_output=True,
        text=True,
        env=two.environment,
        cwd=REPOSITORY,
        check=False,
        timeout=900,
    )
    assert launched.returncode == 0, launched.stderr
    for stage, start in (("domain-teacher", "builtin:nli-teacher"), ("matched-student", "builtin:nli-student")):
        folders = sorted((one.cache / stage).glob("*/model"))
        assert len(folders) == 2
        untrained = weights_in(model_folder(start))
        for folder in folders:
            other = two.cache / folder.relative_to(one.cache)
            if other.exists():  # later stages have other names, since their inputs differ in the last bits
                assert relative_difference(weights_in(folder), weights_in(other), untrained) < ROUNDING
