"""Tests run side by side (pytest-xdist); one marked `alone` measures the computer, and has it to itself."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Holds the computer for one test, its fixtures included."""
    worker = getattr(item.config, "workerinput", None)
    if worker is None:
        return (yield)
    locks = Path(tempfile.gettempdir()) / f"edgeicl-tests-{worker['testrunuid']}"
    with _the_computer(locks, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def _the_computer(locks: Path, *, alone: bool) -> Iterator[None]:
    """Shared, or alone; who waits to be alone holds the door, so that those inside are the last to leave."""
    with locks.with_suffix(".room").open("a") as room:
        with locks.with_suffix(".door").open("a") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
