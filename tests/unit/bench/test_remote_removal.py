"""What is left on a device: folders go, with the program that runs in them, and nobody else's process."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeicl.bench.devices.remote import removal


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def running(folder: Path, sleepers: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    sleepers.append(subprocess.Popen(["sleep", "60"], cwd=folder))
    return sleepers[-1]


def remove(*folders: Path) -> int:
    return subprocess.run(["sh", "-c", removal(list(map(str, folders)))], check=False).returncode


def test_the_program_that_still_runs_there_is_ended(
    tmp_path: Path, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    folders = [tmp_path / "a", tmp_path / "with space"]
    for folder in folders:
        folder.mkdir()
        (folder / "pid").write_text(f"{running(folder, sleepers).pid}\n")
    assert remove(*folders) == 0
    assert [sleeper.wait(timeout=5) for sleeper in sleepers] == [-15, -15]
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_another_s_by_now_is_left_alone(
    tmp_path: Path, sleepers: list[subprocess.Popen[bytes]]
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    other = running(theirs, sleepers)
    (ours / "pid").write_text(f"{other.pid}\n")
    assert remove(ours) == 0
    time.sleep(0.2)
    assert other.poll() is None
    assert not ours.exists()


def test_a_name_is_a_word(tmp_path: Path) -> None:
    odd = tmp_path / "$(touch pwned); 'x'"
    odd.mkdir()
    assert remove(odd) == 0
    assert not odd.exists()
    assert not (tmp_path / "pwned").exists()
    assert shlex.quote(str(odd)) in removal([str(odd)])
