"""Who sees progress, and in which form."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest

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
