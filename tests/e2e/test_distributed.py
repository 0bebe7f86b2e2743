"""`edgeicl compile` on several CPU processes gives the targets and the student of one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeicl.models.model_folder import model_folder
from tests.e2e.small_build import REPOSITORY, Program, small_compile
from tests.trained_weights import ROUNDING, relative_difference, weights_in

# `--multi_gpu` starts processes on CPUs too; `--cpu` starts one, whatever `--num_processes` says.
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
FOUR = [*TORCHRUN[:-1], "4"]


def launched(
    launcher: list[str], program: Program, *arguments: str, edgeicl: tuple[str, ...] = ("-m", "edgeicl")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *launcher, *edgeicl, *arguments],
        capture_output=True,
        text=True,
        env=program.environment | {"PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        check=False,
        timeout=900,
    )


def one_fails(rank: int, what: str) -> tuple[str, ...]:
    return (str(REPOSITORY / "tests/e2e/one_process_fails.py"), str(rank), what)


def students(cache: Path) -> list[Path]:
    return sorted((cache / "student").glob("*/model"))


def compare(alone: Program, together: Program) -> None:
    """Targets bit by bit, students within rounding. One digest for those of both."""
    for stage, name in (("teacher-gain", "gain.json"), ("teacher-targets", "targets.safetensors")):
        (path,) = (together.cache / stage).glob(f"*/{name}")
        assert path.read_bytes() == (alone.cache / path.relative_to(together.cache)).read_bytes()
    start = weights_in(model_folder("builtin:nli-student"))
    assert len(students(together.cache)) == 2
    for path in students(together.cache):
        ours = weights_in(alone.cache / path.relative_to(together.cache))
        assert relative_difference(ours, weights_in(path), start) < ROUNDING


def test_two_processes_make_the_targets_and_students_of_one(
    program: Program, artifact: Path, tmp_path: Path
) -> None:
    two = Program(tmp_path / "cache")
    done = launched(ACCELERATE, two, *small_compile(tmp_path / "artifact"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 processes work together") == 1
    assert (tmp_path / "artifact/edgeicl.json").is_file()
    compare(program, two)


@pytest.mark.parametrize(("rank", "when"), [(3, "killed-scoring"), (0, "killed-training")])
def test_four_processes_go_on_after_one_of_them_was_killed(
    program: Program, artifact: Path, tmp_path: Path, rank: int, when: str
) -> None:
    four = Program(tmp_path / "cache")
    arguments = small_compile(tmp_path / "artifact")
    killed = launched(FOUR, four, *arguments, edgeicl=one_fails(rank, when))
    assert killed.returncode == 1
    assert f"rank      : {rank}" in killed.stderr.split("Root Cause")[1]
    assert not (tmp_path / "artifact").exists()
    left = set(four.cache.rglob("*.safetensors"))
    assert left
    done = launched(FOUR, four, *arguments)
    assert done.returncode == 0, done.stderr
    assert ("training goes on from step" in done.stderr) == (when == "killed-training")
    compare(program, four)


def test_fsdp_shares_the_teacher_and_makes_the_same_targets(
    program: Program, artifact: Path, tmp_path: Path
) -> None:
    two = Program(tmp_path / "cache")
    done = launched(
        [*(part for part in ACCELERATE if part != "--multi_gpu"), "--use_fsdp", "--fsdp_version", "2"],
        two,
        *small_compile(tmp_path / "artifact"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("FSDP: each process holds 1/2 of the teacher's layers") == 1
    compare(program, two)


def test_processes_that_share_no_cache_are_told(tmp_path: Path) -> None:
    """As on nodes with disks of their own."""
    done = launched(
        TORCHRUN,
        Program(tmp_path / "cache"),
        *small_compile(tmp_path / "artifact"),
        edgeicl=one_fails(1, "other-cache"),
    )
    assert done.returncode == 1
    assert done.stderr.count("is not the same folder for all processes; process 1 on") == 1
    assert "next: set EDGEICL_CACHE_DIR to a folder on a disk that all nodes share" in done.stderr


def test_what_one_process_meets_is_told_once(tmp_path: Path) -> None:
    done = launched(
        TORCHRUN,
        Program(tmp_path / "cache"),
        *small_compile(tmp_path / "artifact"),
        edgeicl=one_fails(1, "refused"),
    )
    assert done.returncode == 1
    assert re.search(r"process 1 of 2 on \S+: error: this node's disk .*\nnext: repair it", done.stderr)
    assert done.stderr.count("error: ") == 1


def test_a_launcher_shows_the_message_once_and_ends_with_1(tmp_path: Path) -> None:
    """Which the README says; the launcher's own summary names the exit code of edgeicl."""
    done = launched(TORCHRUN, Program(tmp_path / "cache"), "compile", "no-such-recipe")
    assert done.returncode == 1
    assert done.stderr.count("no-such-recipe: ") == 1
    assert "exitcode  : 2" in done.stderr
