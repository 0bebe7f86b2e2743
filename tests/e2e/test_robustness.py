"""Kills, runs beside each other, damage: whatever happens, the artifact is whole or absent, and the same."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeicl.store import file_sha256
from tests.e2e.small_build import REPOSITORY, Program, small_compile

MODEL_FILES = ("model.onnx", "model.onnx.data")
STAGES = (
    *("teacher-gain", "teacher-targets", "student", "baselines", "evaluation"),
    *("importance", "quantize", "emit", "artifact"),
)


def hashes(folder: Path) -> list[str]:
    return [file_sha256(folder / name) for name in MODEL_FILES]


def test_another_cache_gives_the_same_bytes_and_a_second_run_skips_every_stage(
    program: Program, artifact: Path, tmp_path: Path
) -> None:
    done = Program(tmp_path / "cache").run(*small_compile(tmp_path / "again"))
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path / "again") == hashes(artifact)
    skipped = program.run(*small_compile(tmp_path / "skipped"))
    assert skipped.returncode == 0, skipped.stderr
    assert skipped.stderr.count("unchanged, skipped") == 3
    assert hashes(tmp_path / "skipped") == hashes(artifact)


def test_killed_in_every_stage_a_build_resumes_to_the_same_bytes(artifact: Path, tmp_path: Path) -> None:
    program = Program(tmp_path / "cache")
    output = tmp_path / "artifact"
    for stage in STAGES:
        killed = subprocess.run(
            [sys.executable, "tests/e2e/killed_edgeicl.py", stage, *small_compile(output)],
            capture_output=True,
            env=program.environment | {"PYTHONPATH": str(REPOSITORY)},
            cwd=REPOSITORY,
            check=False,
            timeout=600,
        )
        assert killed.returncode == -signal.SIGKILL, stage
        assert not output.exists()
        assert not list((program.cache / stage).glob("*/stage.json"))
    done = program.run(*small_compile(output))
    assert done.returncode == 0, done.stderr
    assert hashes(output) == hashes(artifact)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "cache"]


def test_two_builds_at_once_share_a_cache(artifact: Path, tmp_path: Path) -> None:
    program = Program(tmp_path / "cache")
    outputs = [tmp_path / "first", tmp_path / "second"]
    running = [program.start(*small_compile(output)) for output in outputs]
    assert [process.wait(timeout=600) for process in running] == [0, 0]
    assert hashes(outputs[0]) == hashes(outputs[1]) == hashes(artifact)


@pytest.mark.parametrize("stage", ["student", "quantize", "emit"])
def test_a_damaged_cached_file_is_found_and_built_anew(
    program: Program, artifact: Path, tmp_path: Path, stage: str
) -> None:
    for output in {record.parent for record in (program.cache / stage).glob("*/stage.json")}:
        largest = max(
            (path for path in output.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
        )
        damaged = bytearray(largest.read_bytes())
        damaged[-1] ^= 1
        largest.write_bytes(damaged)
    done = program.run(*small_compile(tmp_path / "mended"))
    assert done.returncode == 0, done.stderr
    assert f"{stage}: " in done.stderr
    assert "was changed after it was written" in done.stderr
    assert hashes(tmp_path / "mended") == hashes(artifact)
