"""Everything that context distillation offers, at once: from a recipe through to a checked artifact."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeicl.models.model_folder import model_folder
from edgeicl.specs.manifest import Manifest
from edgeicl.store import file_sha256
from tests.e2e.small_build import REPOSITORY, Program, small_compile
from tests.e2e.test_distributed import TORCHRUN, launched, students
from tests.trained_weights import ROUNDING, relative_difference, weights_in

OPTIONS = (
    "distill.student.adapter=lora",
    "distill.student.lora={rank: 4, alpha: 8}",
    "distill.demonstrations.count=4",
    "distill.demonstrations.sets_per_student=2",
    "distill.objective={kl: 1.0, ce: 0.1, lm: 0.1, on_policy: 0.5, over: vocabulary}",
    "distill.on_policy={tokens: 3}",
    'distill.text={source: "builtin:nli", split: train, limit: 100}',
    "distill.training.gradient_checkpointing=true",
    "distill.require_gain=false",
)


def arguments(output: Path, *more: str) -> list[str]:
    return small_compile(output, *(part for option in (*OPTIONS, *more) for part in ("--set", option)))


@pytest.fixture(scope="module")
def built(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("options") / "artifact"
    logs = output.parent / "logs"
    tracked = ("distill.training.tracker=tensorboard", f"distill.training.log_folder={logs}")
    done = program.run(*arguments(output, *tracked))
    assert done.returncode == 0, done.stderr
    assert "lora trains" in done.stderr
    return output


def test_the_artifact_is_whole_and_every_training_was_logged(built: Path) -> None:
    manifest = Manifest.model_validate_json((built / "edgeicl.json").read_bytes())
    assert manifest.files["model.onnx"] == file_sha256(built / "model.onnx")
    assert manifest.evaluation is not None
    runs = {row.method: len(row.accuracy.values) for row in manifest.evaluation.rows}
    # A student for each of two seeds, each of which saw two demonstration sets through its teacher.
    assert runs["context distillation"] == runs["pattern-based fine-tuning"] == 2
    assert runs["in-context teacher"] == runs["in-context student"] == 4
    logged = {path.name for path in (built.parent / "logs").iterdir()}
    assert logged == {"distilling-seed_0", "distilling-seed_1", "fine-tuning-seed_0", "fine-tuning-seed_1"}


def test_killed_in_training_it_ends_with_the_same_bytes(built: Path, tmp_path: Path) -> None:
    program = Program(tmp_path / "cache")
    killed = subprocess.run(
        [sys.executable, "tests/e2e/killed_training.py", "2", *arguments(tmp_path / "artifact")],
        capture_output=True,
        env=program.environment | {"PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        check=False,
        timeout=600,
    )
    assert killed.returncode == -signal.SIGKILL
    assert list(program.cache.glob("student/*.partial/checkpoint/000000002"))
    done = program.run(*arguments(tmp_path / "artifact"))
    assert done.returncode == 0, done.stderr
    assert "training goes on from step 2" in done.stderr
    names = ("model.onnx", "model.onnx.data")
    assert [file_sha256(tmp_path / "artifact" / name) for name in names] == [
        file_sha256(built / name) for name in names
    ]


def test_two_processes_train_the_same_students(program: Program, built: Path, tmp_path: Path) -> None:
    two = Program(tmp_path / "cache")
    done = launched(TORCHRUN, two, *arguments(tmp_path / "artifact"))
    assert done.returncode == 0, done.stderr
    compared = [
        (program.cache / path.relative_to(two.cache), path)
        for path in students(two.cache)
        if (program.cache / path.relative_to(two.cache)).exists()
    ]
    assert len(compared) == 2
    start = weights_in(model_folder("builtin:nli-student"))
    for alone, together in compared:
        assert relative_difference(weights_in(alone), weights_in(together), start) < ROUNDING


def test_an_option_of_another_method_is_refused_with_its_name(program: Program) -> None:
    done = program.run("check", "quickstart", "--set", "distill.method=none", "--set", OPTIONS[0], "--json")
    assert done.returncode == 2
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["key"] == "distill.student.adapter"
    assert problem["found"] == "method none does not read it"
