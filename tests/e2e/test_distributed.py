"""`edgeicl compile` on two CPU processes gives the student of one, whichever launcher starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edgeicl.models.model_folder import model_folder
from tests.e2e.small_build import REPOSITORY, Program, small_compile
from tests.trained_weights import ROUNDING, relative_difference, weights_in

# `--multi_gpu` starts processes on CPUs too; `--cpu` starts one, whatever `--num_processes` says.
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launched(launcher: list[str], program: Program, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "edgeicl", *arguments],
        capture_output=True,
        text=True,
        env=program.environment,
        cwd=REPOSITORY,
        check=False,
        timeout=900,
    )


def students(cache: Path) -> list[Path]:
    return sorted((cache / "student").glob("*/model"))


def test_two_processes_train_the_student_of_one(program: Program, artifact: Path, tmp_path: Path) -> None:
    two = Program(tmp_path / "cache")
    done = launched(ACCELERATE, two, *small_compile(tmp_path / "artifact"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 processes work together") == 1
    assert (tmp_path / "artifact/edgeicl.json").is_file()
    # One digest for the students of both; other tests may have put more into the cache that they share.
    compared = [
        (program.cache / path.relative_to(two.cache), path)
        for path in students(two.cache)
        if (program.cache / path.relative_to(two.cache)).exists()
    ]
    assert len(compared) == 2
    start = weights_in(model_folder("builtin:nli-student"))
    for alone, together in compared:
        assert relative_difference(weights_in(alone), weights_in(together), start) < ROUNDING


def test_a_launcher_shows_the_message_once_and_ends_with_1(tmp_path: Path) -> None:
    """Which the README says; the launcher's own summary names the exit code of edgeicl."""
    done = launched(TORCHRUN, Program(tmp_path / "cache"), "compile", "no-such-recipe")
    assert done.returncode == 1
    assert done.stderr.count("no-such-recipe: ") == 1
    assert "exitcode  : 2" in done.stderr
