"""Builds share the cache; who removes from it is alone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from edgeicl.cache_lock import alone, in_use
from edgeicl.errors import DataError, EdgeiclError


def _use(root: str, log: str, seconds: float) -> None:
    with in_use(Path(root)):
        Path(log).touch()
        time.sleep(seconds)


def start(root: Path, log: Path, seconds: float) -> multiprocessing.process.BaseProcess:
    run = multiprocessing.get_context("fork").Process(target=_use, args=(str(root), str(log), seconds))
    run.start()
    return run


def wait_for(path: Path) -> None:
    for _ in range(1000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(path)


def test_builds_use_the_cache_together_and_nobody_is_alone_then(tmp_path: Path) -> None:
    with in_use(tmp_path):
        with in_use(tmp_path), pytest.raises(EdgeiclError, match="purpose: another edgeicl uses") as caught:
            alone(tmp_path, "purpose").__enter__()
        assert caught.value.exit_code == 1
        with pytest.raises(EdgeiclError, match="nothing was removed"):
            alone(tmp_path, "purpose").__enter__()
    with alone(tmp_path, "purpose"), pytest.raises(EdgeiclError, match="another edgeicl uses"):
        alone(tmp_path, "another").__enter__()
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_build_waits_at_its_start_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with alone(tmp_path, "purpose"):
        run = start(tmp_path, log, 0.0)
        time.sleep(0.3)
        assert not log.exists()
    run.join(timeout=30)
    assert run.exitcode == 0
    assert log.exists()


def test_waiting_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In this process: the gate is held for a moment, and whoever logs that it waits lets it go."""
    monkeypatch.setattr("edgeicl.cache_lock._PASSES_WITHIN_S", 0.05)
    holder = alone(tmp_path, "purpose")
    holder.__enter__()
    monkeypatch.setattr(
        logging.getLogger("edgeicl.cache_lock"), "info", lambda *_: holder.__exit__(None, None, None)
    )
    with in_use(tmp_path), pytest.raises(EdgeiclError, match="another edgeicl uses"):
        alone(tmp_path, "purpose").__enter__()


def test_a_killed_build_holds_nothing(tmp_path: Path) -> None:
    run = start(tmp_path, tmp_path / "log", 60.0)
    wait_for(tmp_path / "log")
    with pytest.raises(EdgeiclError, match="another edgeicl uses"):
        alone(tmp_path, "purpose").__enter__()
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    run.join(timeout=30)
    with alone(tmp_path, "purpose"):
        assert list((tmp_path / "runs").iterdir()) == []


def test_a_cache_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be used: Not a directory"), in_use(tmp_path / "file"):
        pass
