"""`accelerate launch -m edgeicl compile` with two CPU processes gives the student of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from safetensors.numpy import load_file

from tests.e2e.small_build import REPOSITORY, Program, small_compile

# Gradients are summed in another order.
TOLERANCE = 1e-4


def students(cache: Path) -> list[Path]:
    return sorted((cache / "student").glob("*/model/model.safetensors"))


def test_two_processes_train_the_student_of_one(program: Program, artifact: Path, tmp_path: Path) -> None:
    launched = Program(tmp_path / "cache")
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "edgeicl", *small_compile(tmp_path / "artifact")],
        capture_output=True,
        text=True,
        env=launched.environment,
        cwd=REPOSITORY,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "artifact/edgeicl.json").is_file()
    one, two = students(program.cache), students(launched.cache)
    names = {path.parent.parent.name for path in one}
    assert {path.parent.parent.name for path in two} <= names
    compared = [(path, launched.cache / path.relative_to(program.cache)) for path in one]
    compared = [(alone, together) for alone, together in compared if together.exists()]
    assert len(compared) == 2
    for alone, together in compared:
        first, second = load_file(alone), load_file(together)
        assert max(abs(first[name] - second[name]).max() for name in first) < TOLERANCE
