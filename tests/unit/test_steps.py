"""Steps are numbered and timed; what is skipped says so, and nothing is foretold."""

from __future__ import annotations

import logging

import pytest

from edgeicl.steps import Steps


def test_steps_are_numbered_and_timed_or_skipped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="edgeicl")
    steps = Steps(2)
    with steps.step("a"):
        pass
    with steps.step("b") as step:
        step.reused = True
    assert [record.getMessage() for record in caplog.records] == [
        "[1/2] a",
        "[1/2] a ... 0.0 s",
        "[2/2] b",
        "[2/2] b ... unchanged, skipped",
    ]


def test_a_failed_step_is_not_said_to_be_done(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="edgeicl")
    with pytest.raises(RuntimeError, match="no"), Steps(1).step("a"):
        raise RuntimeError("no")
    assert [record.getMessage() for record in caplog.records] == ["[1/1] a"]
