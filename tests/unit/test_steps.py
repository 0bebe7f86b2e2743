"""Steps are numbered, timed, and estimated by the last build."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgeicl.steps import Steps


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return messages


def test_first_without_an_estimate_then_with_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="edgeicl")
    memory = tmp_path / "seconds" / "r.json"
    for expected in ("", "(at most 0 s to the end, by the last build)"):
        steps = Steps(["a", "b"], memory=memory)
        with steps.step("a"):
            pass
        with steps.step("b") as step:
            step.reused = expected != ""
        lines = told(caplog)
        assert [line[:7] for line in lines] == ["[1/2] a", "[1/2] a", "[2/2] b", "[2/2] b"]
        assert expected in lines[0]
        assert lines[1].endswith(" s")
        assert lines[3].endswith("unchanged, skipped") == (expected != "")


def test_a_failed_step_is_not_remembered_and_a_broken_memory_is_ignored(tmp_path: Path) -> None:
    memory = tmp_path / "r.json"
    memory.write_text("[")
    steps = Steps(["a"], memory=memory)
    with pytest.raises(RuntimeError, match="no"), steps.step("a"):
        raise RuntimeError("no")
    assert memory.read_text() == "["
