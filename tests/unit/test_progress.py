"""Who sees progress, and in which form."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest

import edgeicl.progress as progress_module
from edgeicl.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("level", "drawn"), [(logging.INFO, True), (logging.WARNING, False)])
def test_a_bar_is_drawn_on_a_terminal_unless_quiet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, level: int, drawn: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    caplog.set_level(level, logger="edgeicl")
    with track("steps of work", 3) as advance:
        advance(3)
    assert ("steps of work" in terminal.getvalue()) is drawn


def test_a_bar_is_drawn_seldom(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    caplog.set_level(logging.INFO, logger="edgeicl")
    with track("steps of work", 1000) as advance:
        for _ in range(100):
            advance(1)
            time.sleep(0.01)
    assert terminal.getvalue().count("steps of work") <= 5


def test_short_work_in_turn_is_told_as_long_work_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three students of four steps, three seconds a step: a line every ten seconds all the same."""
    now = [0.0]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress_module, "_told_s", [0.0])
    caplog.set_level(logging.INFO, logger="edgeicl")
    for student in (1, 2, 3):
        with track(f"student {student}", 4) as advance:
            for _ in range(4):
                now[0] += 3.0
                advance(1)
    assert caplog.messages == [
        "student 2: 1 of 4, about 9 s left",  # the first one's end, at 12 s, needs no estimate
        "student 3: 1 of 4, about 9 s left",
    ]
