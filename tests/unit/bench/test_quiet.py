"""What share of the computer others have, from counters known on paper."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeicl.bench.quiet as quiet_module
from edgeicl.bench.quiet import busy_share, settled_share


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of counters that moves on while the look at it sleeps."""
    path = tmp_path / "stat"
    path.write_text("cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2 3\n")

    def sleep(_: float) -> None:
        # user +30, system +10, idle +140, iowait +10, steal +10 of 200 ticks; a guest's are in user's.
        path.write_text("cpu  130 0 60 940 60 0 0 10 37 0\ncpu0 1 2 3\n")

    monkeypatch.setattr(quiet_module.time, "sleep", sleep)
    return path


def test_all_but_idle_and_waiting_is_busy(counters: Path) -> None:
    assert busy_share(stat=counters) == pytest.approx(50 / 200)


def test_nothing_moved_and_no_such_system(counters: Path, tmp_path: Path) -> None:
    busy_share(stat=counters)
    assert busy_share(stat=counters) is None  # counters that stand still tell nothing
    assert busy_share(stat=tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("shares", "found", "looks"),
    [
        ([0.02], 0.02, 1),
        ([0.5, 0.3, 0.02, 0.01, 0.03, 0.5], 0.03, 5),  # what has just ended
        ([0.5, 0.02, 0.5, 0.02, 0.5, 0.02, 0.5, 0.02, 0.5], 0.5, 8),  # what comes and goes
        ([0.5] * 9, 0.5, 8),
        ([None], None, 1),
    ],
)
def test_quiet_is_waited_for(
    shares: list[float | None], found: float | None, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks of half a second each, four seconds at most."""
    clock = iter(range(100))
    left = iter(shares)
    monkeypatch.setattr(quiet_module, "busy_share", lambda: next(left))
    monkeypatch.setattr(quiet_module.time, "monotonic", lambda: 0.5 * next(clock))
    assert settled_share(4.0) == found
    assert len(shares) - len(list(left)) == looks
