"""This computer with fewer cores and less memory: what holds, what is told, what is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeicl.bench.devices.local as local
from edgeicl.arguments import limits_like
from edgeicl.bench.devices.device import Limits
from edgeicl.bench.devices.limited import CANNOT_LIMIT
from edgeicl.bench.devices.local import LocalDevice
from edgeicl.bench.devices.memory_group import GroupError, MemoryGroup, make_group, sweep
from edgeicl.bench.stage import bench, limit_notes
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError, SpecError

Make = Callable[..., Path]
MB = 10**6
LINUX = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity and memory limits need Linux")
pytestmark = LINUX
# Holds 300 MB of touched memory, so 100 MB are too little and 700 MB plenty.
HUNGRY = "import json, sys; sys.stdin.read(); b = b'x' * 300_000_000; print(json.dumps({'length': len(b)}))"


@pytest.fixture
def hungry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that needs memory, by the name `hungry`."""
    (tmp_path / "edgeicl_hungry.py").write_text(HUNGRY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(local.PROGRAMS, "hungry", "edgeicl_hungry")


def without_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(limit_bytes: int) -> MemoryGroup:
        raise GroupError("not delegated")

    monkeypatch.setattr(local, "make_group", refused)


def a_group() -> MemoryGroup:
    try:
        return make_group(100 * MB)
    except GroupError as error:
        pytest.skip(f"no control group of memory can be made here: {error}")


def test_a_limited_computer_is_emulated() -> None:
    assert LocalDevice("local").fidelity == "measured"
    assert LocalDevice("local", Limits(cores=(0,))).fidelity == "emulated"
    assert LocalDevice("local", Limits(memory_bytes=MB)).fidelity == "emulated"


def test_cores_hold_and_are_told(make_artifact: Make) -> None:
    core = max(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    device = LocalDevice("local", Limits(cores=(core,)))
    found = bench(make_artifact(), Workload(1, 8, 4, repetitions=1), device=device)
    assert found.device is not None
    assert (found.fidelity, found.device.affinity) == ("emulated", (core,))
    assert found.device.limits == (f"cores {core} (affinity)",)
    assert os.sched_getaffinity(0) == before


def test_memory_above_the_limit_is_noted() -> None:
    device = LocalDevice("local", Limits(memory_bytes=30 * MB))
    no_probe, note = limit_notes({"peak_rss_bytes": 30 * MB + 1}, device)
    assert note.startswith("peak resident memory is above the limit")
    assert "no ceiling of decode" in no_probe
    assert limit_notes({"peak_rss_bytes": 30 * MB}, device) == (no_probe,)
    assert limit_notes({"peak_rss_bytes": 31 * MB}, LocalDevice("local")) == ()


def test_a_core_that_isn_t_there_is_refused() -> None:
    with pytest.raises(BenchError, match=r"no core 4095 for this process; it may use .*\nnext: .*--cores"):
        LocalDevice("local", Limits(cores=(4095,))).open()


def test_a_limit_that_can_t_be_set_is_an_error(tmp_path: Path) -> None:
    limits = {"cores": None, "group": str(tmp_path / "absent" / "cgroup.procs"), "data_bytes": None}
    done = subprocess.run(
        [sys.executable, "-m", "edgeicl.bench.devices.limited", json.dumps(limits), "edgeicl"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == CANNOT_LIMIT
    assert "a limit can't be set: [Errno 2]" in done.stderr


def test_a_process_that_needs_more_is_killed_and_leaves_nothing(hungry: None) -> None:
    group = a_group()
    parent = group.folder.parent
    group.remove()
    device = LocalDevice("local", Limits(memory_bytes=100 * MB))
    with device.open() as bench_:
        assert "control group v" in bench_.held_limits()[0]
        with pytest.raises(
            BenchError, match=r"needs more than 100.0 MB: killed by the memory limit; peak so far"
        ):
            bench_.run("hungry", {}, timeout_s=60)
    assert not list(parent.glob(f"edgeicl-{os.getpid()}-*"))
    with LocalDevice("local", Limits(memory_bytes=700 * MB)).open() as bench_:
        assert bench_.run("hungry", {}, timeout_s=60) == {"length": 300 * MB}
    assert not list(parent.glob(f"edgeicl-{os.getpid()}-*"))


def test_without_groups_rlimit_holds_and_is_told(hungry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    without_groups(monkeypatch)
    with LocalDevice("local", Limits(memory_bytes=100 * MB)).open() as bench_:
        (told,) = bench_.held_limits()
        assert "RLIMIT_DATA" in told
        assert "mapped files don't count; no control group: not delegated" in told
        with pytest.raises(BenchError, match=r"needs more than 100.0 MB: memory was refused by RLIMIT_DATA"):
            bench_.run("hungry", {}, timeout_s=60)
    with LocalDevice("local", Limits(memory_bytes=700 * MB)).open() as bench_:
        assert bench_.run("hungry", {}, timeout_s=60) == {"length": 300 * MB}


def test_another_failure_is_not_called_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        LocalDevice("local", Limits(memory_bytes=700 * MB)).open() as bench_,
        pytest.raises(BenchError, match=r"the runner ended with exit code 1"),
    ):
        bench_.run("runner", {"nothing": 1}, timeout_s=60)


def test_groups_of_ended_processes_are_swept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, ours, other = (
        tmp_path / name for name in (f"edgeicl-{ended.pid}-1", f"edgeicl-{os.getpid()}-1", "x-1-1")
    )
    for folder in (left, ours, other):
        folder.mkdir()
    sweep(tmp_path)
    assert [folder.exists() for folder in (left, ours, other)] == [False, True, True]


@pytest.mark.parametrize("delegated", [True, False])
def test_version_2_is_used_where_it_is_delegated(tmp_path: Path, delegated: bool) -> None:
    """Files stand for the kernel's, which makes those of a new group itself; here they are written."""
    mount, own = tmp_path / "cgroup", tmp_path / "own"
    (mount / "app" / "us").mkdir(parents=True)
    (mount / "cgroup.controllers").write_text("cpu memory")
    (mount / "app" / "cgroup.subtree_control").write_text("memory" if delegated else "cpu")
    (mount / "app" / "us" / "cgroup.subtree_control").write_text("")
    own.write_text("0::/app/us\n")
    if not delegated:
        with pytest.raises(GroupError, match="no control group of memory is mounted, or delegated"):
            make_group(100 * 4096, mount=mount, own_groups=own)
        return
    group = make_group(100 * 4096, mount=mount, own_groups=own)
    assert (group.version, group.folder.parent, group.swap_closed) == (2, mount / "app", True)
    assert (group.folder / "memory.max").read_text() == str(100 * 4096)
    assert (group.folder / "memory.swap.max").read_text() == "0"
    (group.folder / "memory.events").write_text("oom 2\noom_kill 1\n")
    (group.folder / "memory.peak").write_text("4096\n")
    assert (group.kills(), group.peak_bytes()) == (1, 4096)


def test_like_a_target() -> None:
    cores = len(os.sched_getaffinity(0))
    found = limits_like("android-midrange-2024", Limits(cores=(0,)))
    assert found.cores == (0,)
    assert found.memory_bytes is not None
    assert limits_like("android-midrange-2024", Limits((0,), MB)).memory_bytes == MB
    if cores < 4:
        with pytest.raises(SpecError, match=rf"threads, this computer has {cores} cores for us"):
            limits_like("android-midrange-2024", Limits())
