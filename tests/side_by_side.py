"""Locks of processes that run tests of one checkout at the same time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Any two files would do; these are there.
_ROOM = Path(__file__)
_DOOR = Path(__file__).with_name("conftest.py")


@contextmanager
def the_computer(*, alone: bool) -> Iterator[None]:
    """Shared with other processes, or alone: who waits for that holds the door, so that no more come in."""
    with _ROOM.open() as room:
        with _DOOR.open() as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # a forked child may have it too
